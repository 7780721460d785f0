-- include: records
-- Follows records.lua where messages are removed: a single one, or those that the history need not keep any more.

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
  for ended in string.gmatch(record.body, '{"s":"(%a+)"') do
    if ended == 'failed' or ended == 'lost' or ended == 'cancelled' then
      unmark('ended:' .. ended)
    end
  end
  for error in errors_of(record) do
    unmark('error:' .. error)
  end
  unmark_death(record, unmark)
  if tonumber(record.cut) > 0 then
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
  call('DEL', KEY.record(id), KEY.cancel(id))
  if call('HINCRBY', KEY.kept, segment, -1) == 0 and segment < segment_of(tonumber(call('GET', KEY.seq))) then
    call('HDEL', KEY.kept, segment)
    call('HDEL', KEY.changed, segment)
    call('ZREM', KEY.segments, segment)
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
  local removed, bit, oldest = 0, -1, nil
  while removed < most and (before > 0 or removed < excess) do
    bit = call('BITPOS', map, 1, bit + 1, -1, 'BIT')
    if bit < 0 then
      -- All were looked at: not again for a while.
      if oldest then
        call('ZADD', key, math.max(oldest, before + age / 100), segment)
      else
        call('ZREM', key, segment)
      end
      break
    end
    local id = call('LINDEX', KEY.map(segment, 'ids'), bit)
    local head = id and call('GETRANGE', KEY.record(id), 0, 200) or ''
    local seq, at = string.match(head, '^(%d+)\t%a+\t%d+\t%d+\t%d+\t%d+\t(%d+)\t')
    if tonumber(seq) ~= segment * SEGMENT + bit then
      call('SETBIT', map, bit, 0)
    elseif removed < excess or tonumber(at) <= before then
      forget(id, load(id))
      removed = removed + 1
    else
      oldest = math.min(oldest or now, tonumber(at))
    end
  end
  return removed
end

-- Removes the oldest ended messages that are too old or too many, so many at most.
local function retire(most, limits)
  store_marks()
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
