-- include: transition
-- Stores messages and enqueues them, or delays them.
-- Arguments: for how many ms this send has been tried; how many messages; for each its id, payload, queue, priority, actor,
-- delay in ms (-1: none), unique key (or empty) and for how many ms that holds.
-- Answer: for each the id of the message that holds the unique key, or an empty text.
-- Keys: unique.
local ids, records, answers, sent = {}, {}, {}, {}
local began = now - number()

-- Whether a message ended after this send began: an earlier try enqueued it, whose answer was lost, or it still ran then.
-- What ended in the future did so by another clock: better twice than never.
local function has_ended_since(record)
  local at = record and FINAL[record.state] and tonumber(record.at)
  return at and at > began and at <= now
end

-- The message that waits or runs under a unique key; when there is none, the key is taken, and that is an empty text.
local function holder_of(unique, id, ttl)
  local key = KEY.unique(unique)
  if unique == '' or call('SET', key, id, 'NX', 'PX', ttl) then
    return ''
  end
  local holder = call('GET', key)
  local other = holder ~= id and load(holder)
  if sent[holder] or other and not FINAL[other.state] then
    return holder ~= id and holder or ''
  end
  call('SET', key, id, 'PX', ttl)
  return ''
end

for i = 1, number() do
  local id, payload, queue, priority, actor, later, unique, ttl =
    argument(), argument(), argument(), argument(), argument(), number(), argument(), number()
  local record = not sent[id] and load(id)
  local has_ended = has_ended_since(record)
  answers[i] = has_ended and '' or holder_of(unique, id, ttl)
  if answers[i] == '' and not sent[id] and not has_ended then
    if not record then
      record = new_record(queue, priority, actor, payload)
      record.later = later
      table.insert(ids, id)
      table.insert(records, record)
      sent[id] = true
    elseif FINAL[record.state] then
      enqueue_again(id, record, later, queue, priority, actor, payload)
    end
    -- Otherwise it waits or runs: sent twice, because the first answer was lost.
  end
end
if #ids > 0 then
  enqueue_new(ids, records)
end
finish(0)
return answers
