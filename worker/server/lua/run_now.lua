-- include: request
-- Enqueues delayed messages now. Arguments: as request.lua, then ids. Answers for each with an empty text, or with the
-- state in which it is instead.
local answers = {}
while position < #ARGV do
  local id = argument()
  local record = load(id)
  if not record or record.state ~= 'delayed' then
    table.insert(answers, record and record.state or 'unknown')
  else
    call('ZREM', KEY.due, id)
    note(id, record)
    set_state(record, 'queued')
    enqueue(id, record)
    save(id, record)
    table.insert(answers, '')
  end
end
finish_request()
return answers
