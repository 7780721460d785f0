-- include: transition
-- Where messages are removed: a single one, or those that the history need not keep any more.
-- Keys: arguments, bytes, cancel, changed, due, ended, failures, kept, map, names, record, segments, states, subject, times.

-- For how long (ms) and how many messages are kept of each state in which they end; worker/history/limits.py.
local function read_limits()
  local limits = {}
  for _, state in ipairs(STATES) do
    if FINAL[state] then
      limits[state] = { age = number(), most = number() }
    end
  end
  return limits
end

-- Removes a message with all that points to it.
local function forget(id, record)
  local seq, segment = record.seq, segment_of(record.seq)
  local function unmark(name)
    call('SETBIT', KEY.map(segment, name), seq % SEGMENT, 0)
  end
  unmark('actor:' .. record.actor)
  unmark('queue:' .. record.queue)
  unmark('state:' .. record.state)
  count_in(record.queue, record.state, -1)
  if record.size then
    add_to(KEY.bytes, record.state, -record.size)
  end
  if more_field(record, 'bare') then
    unmark('bare')
  end
  local events = events_of(record)
  local has_failed = record.state == 'dead' or record.cut > 0
  for kind in states_in(events) do
    has_failed = has_failed or FAILURES[kind]
    if MARKED_ENDS[kind] then
      unmark('ended:' .. kind)
    end
  end
  for error_type in errors_in(events) do
    unmark('error:' .. error_type)
  end
  if record.state == 'dead' then
    unmark_cause(record, unmark)
  end
  if has_failed then
    call('ZREM', KEY.failures, seq)
  end
  if record.cut > 0 then
    -- Events are gone that would tell what else it is marked with.
    for _, name in ipairs(call('SMEMBERS', KEY.names)) do
      if string.find(name, '^e%a+:') and call('GETBIT', KEY.map(segment, name), seq % SEGMENT) == 1 then
        unmark(name)
      end
    end
  end
  for subject in string.gmatch(record.subjects, '[^\31]+') do
    call('ZREM', KEY.subject(subject), id)
  end
  call('ZREM', KEY.due, id)
  call('DEL', KEY.record(id), KEY.cancel(id))
  if call('HINCRBY', KEY.kept, segment, -1) == 0 and segment < segment_of(next_seq()) then
    call('HDEL', KEY.kept, segment)
    call('HDEL', KEY.changed, segment)
    call('ZREM', KEY.segments, segment)
    call('ZREM', KEY.arguments, segment)
    call('DEL', KEY.map(segment, 'ids'), KEY.times(segment))
    for _, name in ipairs(call('SMEMBERS', KEY.names)) do
      call('DEL', KEY.map(segment, name))
    end
  end
end

-- Removes the oldest messages that ended in a state from a segment, so many at most: those that ended before a time, and
-- so many more. Answers how many there were.
local function retire_from(segment, state, before, age, excess, most)
  local key, map = KEY.ended(state), KEY.map(segment, 'state:' .. state)
  local removed, place, oldest = 0, -1, nil
  while removed < most and (before > 0 or removed < excess) do
    place = call('BITPOS', map, 1, place + 1, -1, 'BIT')
    if place < 0 then
      -- All were looked at: not again for a while.
      if oldest then
        call('ZADD', key, math.max(oldest, before + age / 100), segment)
      else
        call('ZREM', key, segment)
      end
      break
    end
    local id = call('LINDEX', KEY.map(segment, 'ids'), place)
    local seq, _, at = decode_begin(id and call('GETRANGE', KEY.record(id), 0, LONGEST_HEAD_BEGIN) or '')
    if seq ~= segment * SEGMENT + place then
      call('SETBIT', map, place, 0)
    elseif removed < excess or at <= before then
      forget(id, load(id))
      removed = removed + 1
    else
      oldest = math.min(oldest or now, at)
    end
  end
  return removed
end

-- Removes the oldest ended messages that are too old or too many, so many at most.
local function retire(most, limits)
  store_marks()
  store_failures()
  store_ended()
  for state, limit in pairs(limits) do
    local key, before = KEY.ended(state), now - limit.age
    local excess = tonumber(call('HGET', KEY.states, state) or 0)
      + ((changes[KEY.states] or {})[state] or 0) - limit.most
    while most > 0 do
      local aged = call('ZRANGEBYSCORE', key, '-inf', before, 'LIMIT', 0, 1)[1]
      local segment = aged or excess > 0 and call('ZRANGE', key, 0, 0)[1]
      if not segment then
        break
      end
      local removed = retire_from(segment, state, aged and before or 0, limit.age, excess, most)
      most, excess = most - removed, excess - removed
    end
  end
end
