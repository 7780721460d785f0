-- include: request
-- Enqueues dead letters again. Arguments: as request.lua, then for each its id and the message with a new retry budget.
-- Answers for each with an empty text, or with the state in which it is instead.
local answers = {}
while position < #ARGV do
  local id, payload = argument(), argument()
  local record = load(id)
  if not record or record.state ~= 'dead' then
    table.insert(answers, record and record.state or 'unknown')
  else
    note(id, record)
    enqueue_again(id, record, -1, record.queue, record.lane, record.actor, payload)
    table.insert(answers, '')
  end
end
finish_request()
return answers
