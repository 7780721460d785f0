-- Enqueues a dead letter again. Arguments: id, the message with a new retry budget, the event's line. Answers 1, or 0 if
-- it is no dead letter (any more).
local id, payload, line = argument(), argument(), argument()
local record = load(id)
if not record or record.state ~= 'dead' then
  return 0
end
append(id, record, line)
enqueue_again(id, record, -1, record.queue, record.lane, record.actor, payload)
finish(0)
return 1
