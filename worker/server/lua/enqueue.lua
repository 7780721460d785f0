-- include: records
-- Stores messages and enqueues them, or delays them. Arguments: for how many ms this send has been tried; how many; for
-- each its id, payload, queue, lane, actor, delay in ms (-1: none), unique key (or empty) and for how many ms that holds.
-- Answers for each with the id of the message that holds the unique key, or an empty text.
local ids, records, answers, sent = {}, {}, {}, {}
local began = now - number()

-- Whether a message ended after this send began: an earlier try enqueued it, whose answer was lost, or it still ran then.
-- What ended in the future did so by another clock: better twice than never.
local function has_ended_since(record)
  local ended = record and FINAL[record.state] and tonumber(record.at)
  return ended and ended > began and ended <= now
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
  local id, payload, queue, lane, actor, later, unique, ttl =
    argument(), argument(), argument(), argument(), argument(), number(), argument(), number()
  local record = not sent[id] and load(id)
  local has_ended = has_ended_since(record)
  answers[i] = has_ended and '' or holder_of(unique, id, ttl)
  if answers[i] == '' and not sent[id] and not has_ended then
    if not record then
      table.insert(ids, id)
      table.insert(records, new_record(later, queue, lane, actor, payload))
      sent[id] = true
    elseif FINAL[record.state] then
      enqueue_again(id, record, later, queue, lane, actor, payload)
    end
    -- Otherwise it waits or runs: sent twice, because the first answer was lost.
  end
end
if #ids > 0 then
  create(ids, records)
end
finish(0)
return answers
