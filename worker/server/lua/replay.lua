-- include: request
-- Enqueues dead letters again.
-- Arguments: as request.lua, then for each its id and the message with a new retry budget.
-- Answer: for each an empty text, or the state in which it is instead.
local answers = {}
while position < #ARGV do
  local id, payload = argument(), argument()
  local record = load(id)
  if not record or record.state ~= 'dead' then
    table.insert(answers, record and record.state or 'unknown')
  else
    tell(id, record)
    enqueue_again(id, record, -1, record.queue, record.priority, record.actor, '', payload)
    table.insert(answers, '')
  end
end
finish_request()
return answers
