-- include: transition
-- Stores messages and enqueues them, or delays them. A message that its own attempt enqueues is stored in its record, and
-- is enqueued when it has ended.
-- Arguments: for how many ms this send has been tried (-1: this is its first try); how many messages; for each its id,
-- payload, queue, priority, actor, subjects, delay in ms (-1: none), unique key (or empty), for how many ms that holds from when the
-- message is due, whether its begin frees it (else its end), for how many ms the id is remembered from when it is due, so
-- that it is enqueued only if it was never seen (0: not), and the fence of its own attempt that enqueues it (0: another's).
-- Answer: for each an empty text, or the id of the message for whose sake it was not enqueued: its own if that is taken,
-- or that of the message that holds the unique key.
-- Keys: seen, unique.
local ids, records, answers, sent = {}, {}, {}, {}
local tried_for = number()
local began = tried_for >= 0 and now - tried_for or math.huge

-- Whether an earlier try of this send, whose answer was lost, has enqueued a message.
local function was_enqueued(record, later)
  local at = record and tonumber(record.at)
  if not at or record.state ~= 'delayed' then
    later = 0
  end
  -- What ended in the future did so by another clock: better twice than never.
  return at and at - math.max(later, 0) > began and not (FINAL[record.state] and at > now)
end

-- Remembers an id; answers since when, or nil if it was never seen.
local function seen_since(id, ms)
  local key = KEY.seen(id)
  return not call('SET', key, now_text, 'NX', 'PX', ms) and tonumber(call('GET', key)) or nil
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

-- A message that runs, enqueued by its own attempt: what an earlier attempt has enqueued so, it does again. Answers as the
-- script does.
local function store_next(id, record, later, queue, priority, actor, subjects, payload)
  local before = more_field(record, 'next')
  local fence, _, _, _, _, _, same = string.match(before or '', NEXT)
  if tonumber(fence) == record.fence then
    return began <= now and same == payload and '' or id
  end
  local due = string.format('%.0f', now + math.max(later, 0))
  set_more(record, 'next', encode_next(record.fence, due, queue, priority, actor, subjects, payload))
  save(id, record)
  return ''
end

local function enqueue(id, payload, queue, priority, actor, subjects, later, unique, ttl, until_start, seen, fence)
  local record, wait = not sent[id] and load(id), math.max(later, 0)
  local is_known = sent[id] or record and not FINAL[record.state]
  if record and is_known and record.fence == fence then
    return store_next(id, record, later, queue, priority, actor, subjects, payload)
  end
  if was_enqueued(record, later) then
    return ''
  end
  local at = seen > 0 and seen_since(id, seen + wait)
  if at and at > began then
    return ''
  elseif at or is_known or record and seen > 0 then
    return id
  end
  local holder = holder_of(unique, id, ttl + wait)
  if holder ~= '' then
    return holder
  elseif record then
    begin_again(id, record, later >= 0 and now + later or nil, queue, priority, actor, subjects, payload)
  else
    record = new_record(queue, priority, actor, payload, read_subjects(subjects))
    record.later = later
    table.insert(ids, id)
    table.insert(records, record)
  end
  if until_start then
    set_more(record, 'until', 'start')
  end
  if record.seq then
    save(id, record)
  end
  sent[id] = true
  return ''
end

for i = 1, number() do
  answers[i] = enqueue(argument(), argument(), argument(), argument(), argument(), argument(), number(), argument(), number(),
    argument() == '1', number(), number())
end
if #ids > 0 then
  enqueue_new(ids, records)
end
finish(0)
return answers
