-- include: wanted
-- Finds messages, newest first. It stops before it has found all when it has had to look at many messages one by one.
-- Arguments: as wanted.lua; the number below which to look is that of a message.
-- Answer: the number below which to go on (-1: there are no more) and how many were found, then their ids and records.
-- Keys: changed, map, record, scratch, segments, seq, subject, times.
-- What is looked at in one call, in messages; one of which an index tells all counts less.
local LOOKS = 3000
local INDEX_LOOKS = 0.2
local MANY_IDS = 100
-- Messages about something rarer are looked at one by one, without a look at the segments.
local RARE = 3000
local BITS = { [0] = 128, 64, 32, 16, 8, 4, 2, 1 }
local ALL = {}
for i, state in ipairs(STATES) do
  ALL[i] = 'state:' .. state
end

if below < 0 then
  below = tonumber(call('GET', KEY.seq) or 0)
end

local function maps_of(segment, wanted)
  local keys = {}
  for i, name in ipairs(wanted) do
    keys[i] = KEY.map(segment, name)
  end
  return keys
end

-- The bits of a segment that one of the names has, as a key.
local function any_of(segment, wanted, scratch)
  if #wanted == 1 then
    return KEY.map(segment, wanted[1])
  end
  call('BITOP', 'OR', scratch, unpack(maps_of(segment, wanted)))
  return scratch
end

-- The segment's bits that match, as a key; nil: none does.
local function common(segment)
  local keys = maps_of(segment, names)
  for i, group in ipairs(groups) do
    table.insert(keys, any_of(segment, group, KEY.scratch(i)))
  end
  if #keys == 0 then
    return any_of(segment, ALL, KEY.scratch(0))
  end
  if #keys > 1 then
    if call('EXISTS', unpack(keys)) < #keys then
      return nil
    end
    call('BITOP', 'AND', KEY.scratch(0), unpack(keys))
    return KEY.scratch(0)
  end
  return keys[1]
end

local segments, changed = {}, {}
local members = call('ZRANGE', KEY.segments, 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
  table.insert(segments, { number = tonumber(members[i]), began = tonumber(members[i + 1]) })
end
table.sort(segments, function(a, b) return a.number > b.number end)
local fields = call('HGETALL', KEY.changed)
for i = 1, #fields, 2 do
  changed[tonumber(fields[i])] = tonumber(fields[i + 1])
end

-- Whether messages of the segment can match by their time; and whether all of them do.
local function in_time(segment)
  local last = changed[segment.number] or now
  if check_time and call('BITPOS', KEY.map(segment.number, 'state:delayed'), 1) >= 0 then
    last = math.huge -- when they are due
  end
  if since >= 0 and last < since or till >= 0 and segment.began > till then
    return false
  end
  return true, (since < 0 or segment.began >= since) and (till < 0 or last <= till)
end

local found, count, looks = { -1, 0 }, 0, 0

-- Adds a message if it matches; answers whether the looking must end.
local function look_at(seq, id, with_time, known)
  if with_time or #subjects > (known and 1 or 0) then
    looks = looks + 1
  end
  if id and has_subjects(id, known) and not (with_time and not is_in_time(id)) then
    if most == 0 then
      count = count + 1
    else
      local record = call('GET', KEY.record(id))
      if record then
        count = count + 1
        table.insert(found, id)
        table.insert(found, with_name_of_today(record))
      end
    end
  end
  if most > 0 and count >= most or looks >= LOOKS then
    found[1] = seq
    return true
  end
  return false
end

-- Tells whether a message of a segment is in time, by its place; nil: its record must be asked.
local function timing_of(segment)
  local times, byte = call('GET', KEY.times(segment)) or '', string.byte
  return function(place)
    local a, b, c, d, e, f = byte(times, place * 6 + 1, place * 6 + 6)
    local at = f and ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f or 0
    if at == 0 then
      return nil
    end
    return (since < 0 or at >= since) and (till < 0 or at <= till)
  end
end

-- The ids of a segment by their places: all at once when many are asked for.
local function ids_of(segment)
  local ids, all, asked = KEY.map(segment, 'ids'), nil, 0
  return function(place)
    asked = asked + 1
    if asked <= MANY_IDS then
      return call('LINDEX', ids, place)
    end
    all = all or call('LRANGE', ids, 0, -1)
    return all[place + 1]
  end
end

-- Looks at the messages whose bits are set, from the last on; `timing`: as above, or nil where all are in time.
local function look_through_bits(segment, map, last, timing)
  local first, ids = segment * SEGMENT, ids_of(segment)
  local is_enough = most == 0 and #subjects == 0
  for byte = math.min(#map, math.floor((last - first) / 8) + 1), 1, -1 do
    local value = string.byte(map, byte)
    if value ~= 0 then
      for low = 0, 7 do
        local seq = first + byte * 8 - 1 - low
        if math.floor(value / 2 ^ low) % 2 == 1 and seq <= last then
          local is_timely = not timing or timing(seq - first)
          looks = looks + (timing and INDEX_LOOKS or 0)
          if is_timely and is_enough then
            count = count + 1
          elseif is_timely ~= false and look_at(seq, ids(seq - first), is_timely == nil) then
            return true
          end
        end
      end
    end
  end
  return false
end

-- Looks at the messages between two numbers that are about something, from the last on; `map`: of those wanted, or nil.
local function look_through_members(subject, map, first, last, timing)
  local members = call('ZREVRANGEBYSCORE', KEY.subject(subject), last, first, 'WITHSCORES')
  local band, byte, floor, begin = bit.band, string.byte, math.floor, segment_of(first) * SEGMENT
  local is_enough = most == 0 and #subjects == 1
  looks = looks + #members * INDEX_LOOKS
  for i = 1, #members, 2 do
    local seq = tonumber(members[i + 1])
    local place = seq - begin
    if not map or band(byte(map, floor(place / 8) + 1) or 0, BITS[place % 8]) ~= 0 then
      local is_timely = not timing or timing(place)
      if is_timely and is_enough then
        count = count + 1
      elseif is_timely ~= false and look_at(seq, members[i], is_timely == nil, subject) then
        return true
      end
    end
  end
  return false
end

-- `subject`: the least frequent of those wanted, if there are any.
local function look_through(segment, subject, with_time)
  local first, is_marked = segment * SEGMENT, #names + #groups > 0
  local last, about, key, marked = math.min(first + SEGMENT, below) - 1, 0, nil, 0
  if subject then
    about = call('ZCOUNT', KEY.subject(subject), first, last)
    if about > 0 and not is_marked and most == 0 and #subjects == 1 and not with_time then
      count = count + about
      return false
    end
  end
  if is_marked and (about > 0 or not subject) or not subject then
    key = common(segment)
    marked = key and call('BITCOUNT', key, 0, last - first, 'BIT') or 0
    if most == 0 and not subject and not with_time then
      count = count + marked
      return false
    end
  end
  local timing = with_time and timing_of(segment) or nil
  if about > 0 and (not is_marked or marked > 0 and about < 3 * marked) then
    return look_through_members(subject, key and call('GET', key), first, last, timing)
  end
  return marked > 0 and (about > 0 or not subject) and look_through_bits(segment, call('GET', key), last, timing)
end

local function look_through_segments(subject)
  local each = 2 + (#names + #groups) / 2
  for _, segment in ipairs(segments) do
    if segment.number * SEGMENT < below then
      local some, all = in_time(segment)
      if some then
        looks = looks + each
        if look_through(segment.number, subject, not all) then
          return
        end
        if looks >= LOOKS and segment.number > 0 then
          found[1] = segment.number * SEGMENT
          return
        end
      end
    end
  end
end

-- Messages about something rare are looked at one by one.
local function look_through_subject(subject)
  local members = call('ZREVRANGEBYSCORE', KEY.subject(subject), '(' .. string.format('%.0f', below), '-inf', 'WITHSCORES')
  for i = 1, #members, 2 do
    local seq = tonumber(members[i + 1])
    if bears_all(seq) and look_at(seq, members[i], check_time, subject) then
      return
    end
  end
end

local rarest, fewest
for _, subject in ipairs(subjects) do
  local size = call('ZCARD', KEY.subject(subject))
  if not fewest or size < fewest then
    rarest, fewest = subject, size
  end
end
if rarest and fewest < RARE then
  look_through_subject(rarest)
else
  look_through_segments(rarest)
end
call('DEL', KEY.scratch(0), KEY.scratch(1), KEY.scratch(2), KEY.scratch(3), KEY.scratch(4))
found[2] = count
return found
