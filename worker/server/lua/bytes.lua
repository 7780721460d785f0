-- include: retention
-- Keeps the bytes of messages that have ended within bounds: their arguments go first, then the messages themselves, the
-- oldest first. In steps, so that no script holds up the server. What others still need stays.
-- Keys: arguments, bytes, cancel, dramatiq, ended, map, names, scratch.
local MOST_FREED = 4194304
local MOST_PASSED_OVER = 100
local LOOKED_AGAIN_AFTER = 10000
local MOST_SEGMENTS = 3
local WARNED_FROM = 0.9

-- For how many bytes messages are kept that have ended, and dead letters; -1: without a bound. worker/history/limits.py.
local function read_bounds()
  return { history = number(), dead = number() }
end

-- The bytes of the messages that have ended in these states.
local function bytes_of(states)
  local sum, pending = 0, changes[KEY.bytes] or {}
  for i, stored in ipairs(call('HMGET', KEY.bytes, unpack(states))) do
    sum = sum + tonumber(stored or 0) + (pending[states[i]] or 0)
  end
  return sum
end

-- Whether the message is one of a group that is not complete, or its attempt, cancelled on the way, has not ended yet.
local function is_needed(id, record)
  if record.state == 'cancelled' and call('EXISTS', KEY.cancel(id)) == 1 then
    return true
  end
  local _, from = string.find(record.body, '"group_completion_uuid":"', 1, true)
  local group = from and string.match(record.body, '^[^"]*', from + 1)
  return group ~= nil and tonumber(call('GET', KEY.dramatiq(group)) or 0) > 0
end

-- Frees bytes of the messages of a segment whose bits are set in a map, the lowest number first, until as many are free as
-- are wanted. Answers whether none is left in the map, and whether some were passed over because others need them.
-- `step`: how many bytes are wanted, and how many messages and bytes this script may still work on; `free` answers how
-- many bytes it has freed.
local function free_from(segment, map, step, free)
  local place, passed_over = -1, 0
  while step.wanted > 0 and step.messages > 0 and step.bytes > 0 do
    place = call('BITPOS', map, 1, place + 1, -1, 'BIT')
    if place < 0 or passed_over == MOST_PASSED_OVER then
      return place < 0 and passed_over == 0, passed_over > 0
    end
    local id = call('LINDEX', KEY.map(segment, 'ids'), place)
    local record = id and load(id)
    if not record or record.seq ~= segment * SEGMENT + place then
      call('SETBIT', map, place, 0)
      step.messages = step.messages - 1
    elseif is_needed(id, record) then
      passed_over = passed_over + 1
      step.bytes = step.bytes - record.size
    else
      step.messages, step.bytes = step.messages - 1, step.bytes - record.size
      step.wanted = step.wanted - free(id, record)
    end
  end
  return false, false
end

local function drop_arguments(id, record)
  local size = #record.body
  strip(record)
  save(id, record)
  call('SADD', KEY.names, 'bare')
  call('SETBIT', KEY.map(segment_of(record.seq), 'bare'), record.seq % SEGMENT, 1)
  return size - #record.body
end

-- The messages of a segment that have their arguments, and need them no more.
local function map_of_arguments(segment)
  local settled, bare, maps = KEY.scratch(1), KEY.scratch(2), {}
  for i, state in ipairs(SETTLED) do
    maps[i] = KEY.map(segment, 'state:' .. state)
  end
  call('BITOP', 'OR', settled, unpack(maps))
  call('BITOP', 'AND', bare, settled, KEY.map(segment, 'bare'))
  call('BITOP', 'XOR', settled, settled, bare)
  return settled
end

local function drop_all_arguments(step)
  while step.wanted > 0 and step.messages > 0 and step.bytes > 0 do
    local segment = call('ZRANGEBYSCORE', KEY.arguments, '-inf', now, 'LIMIT', 0, 1)[1]
    if not segment then
      return
    end
    local is_done, some_stay = free_from(segment, map_of_arguments(segment), step, drop_arguments)
    if is_done then
      call('ZREM', KEY.arguments, segment)
    elseif some_stay then
      call('ZADD', KEY.arguments, now + LOOKED_AGAIN_AFTER, segment)
    end
  end
end

local function drop_message(id, record)
  forget(id, record)
  return record.size
end

-- Drops the messages that ended in one of these states, those of the oldest segments first.
local function drop_oldest(states, step)
  local found = {}
  for _, state in ipairs(states) do
    local segments = call('ZRANGE', KEY.ended(state), 0, MOST_SEGMENTS - 1, 'WITHSCORES')
    for i = 1, #segments, 2 do
      table.insert(found, { segment = segments[i], state = state, at = tonumber(segments[i + 1]) })
    end
  end
  table.sort(found, function(a, b) return a.at < b.at end)
  for _, one in ipairs(found) do
    if free_from(one.segment, KEY.map(one.segment, 'state:' .. one.state), step, drop_message) then
      call('ZREM', KEY.ended(one.state), one.segment)
    end
  end
  if #found == 0 then
    -- What was counted is gone: the server has lost it, or somebody has deleted it.
    call('HDEL', KEY.bytes, unpack(states))
    changes[KEY.bytes] = nil
  end
end

-- Brings the bytes of completed, skipped and cancelled messages nearer to their bound, by a step of so many messages at
-- most. Answers whether there is more to do.
local function keep_within(bound, most)
  local excess = bound < 0 and 0 or bytes_of(SETTLED) - bound
  if excess <= 0 then
    return false
  end
  local step = { wanted = excess, messages = most, bytes = MOST_FREED }
  drop_all_arguments(step)
  if step.wanted > 0 then
    drop_oldest(SETTLED, step)
  end
  call('DEL', KEY.scratch(1), KEY.scratch(2))
  return step.wanted > 0 and step.messages < most
end

-- Does so with dead letters, but only when it was told for so many ms that they will go. Answers their bytes where that is
-- to be told, else 0.
local function keep_dead_within(bound, warned_for, most)
  local size = bound < 0 and 0 or bytes_of({ 'dead' })
  if bound < 0 or size <= bound * WARNED_FROM then
    call('HDEL', KEY.bytes, 'warned')
    return 0
  end
  call('HSETNX', KEY.bytes, 'warned', now_text)
  if size > bound and now - call('HGET', KEY.bytes, 'warned') >= warned_for then
    drop_oldest({ 'dead' }, { wanted = size - bound, messages = most, bytes = MOST_FREED })
  end
  return size
end
