-- include: transition
-- Looks whether the messages that wait or run still have their records: a server may have evicted them, or somebody may
-- have deleted them. Messages that are gone are taken out of the indexes and the counts.
-- Arguments: the segment and the place in it from which to look, how many messages to look at.
-- Answer: the segment and the place from which to go on (0 and 0: from the first), then ids of messages that are gone.
-- Keys: due, kept, map, names, record, segments.
local segment_from, place_from, most = number(), number(), number()
local gone = {}

-- The rest of a name whose bit is set for a message, such as its queue.
local function value_of(segment, place, kind)
  for _, name in ipairs(call('SMEMBERS', KEY.names)) do
    if string.sub(name, 1, #kind) == kind and call('GETBIT', KEY.map(segment, name), place) == 1 then
      call('SETBIT', KEY.map(segment, name), place, 0)
      return string.sub(name, #kind + 1)
    end
  end
  return ''
end

local function drop(segment, place, state, id)
  call('SETBIT', KEY.map(segment, 'state:' .. state), place, 0)
  value_of(segment, place, 'actor:')
  count_in(value_of(segment, place, 'queue:'), state, -1)
  call('HINCRBY', KEY.kept, segment, -1)
  if id and call('EXISTS', KEY.record(id)) == 0 then
    call('ZREM', KEY.due, id)
  end
  table.insert(gone, id or '?')
end

-- Looks at the messages of a state in a segment; answers the place from which to go on, or nil when that was all.
local function look_at(segment, state, place)
  local map = KEY.map(segment, 'state:' .. state)
  while most > 0 do
    place = call('BITPOS', map, 1, place, -1, 'BIT')
    if place < 0 then
      return nil
    end
    most = most - 1
    local id = call('LINDEX', KEY.map(segment, 'ids'), place)
    local seq = decode_begin(id and call('GETRANGE', KEY.record(id), 0, LONGEST_HEAD_BEGIN) or '')
    if seq ~= segment * SEGMENT + place then
      drop(segment, place, state, id)
    end
    place = place + 1
  end
  return place
end

local segments = {}
for _, one in ipairs(call('ZRANGE', KEY.segments, 0, -1)) do
  if tonumber(one) >= segment_from then
    table.insert(segments, tonumber(one))
  end
end
table.sort(segments)
local answer = { 0, 0 }
for _, segment in ipairs(segments) do
  local from = segment == segment_from and place_from or 0
  local rest
  for _, state in ipairs(STATES) do
    if not FINAL[state] then
      local place = look_at(segment, state, from)
      rest = place and math.min(rest or place, place) or rest
    end
  end
  if rest then
    answer = { segment, rest }
    break
  end
end
store_indexes()
for _, id in ipairs(gone) do
  table.insert(answer, id)
end
return answer
