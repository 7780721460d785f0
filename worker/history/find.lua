-- Finds messages, newest first. Arguments: how many at most (0: only counts them), the number below which to look (-1: from
-- the newest), since and until when they are in their state (ms; -1: any), an error's type (or empty), how many
-- groups of marks, and then lists, each after its length: each group, of which they bear one mark; marks that they all
-- bear; subjects that they all have.
-- Answers the number below which to go on (-1: there are no more) and how many were found, then their ids and records.
-- It stops before it has found all when it has had to look at many messages one by one.
local most, below, since, till, error_type = number(), number(), number(), number(), argument()
local function list()
  local found = {}
  for i = 1, number() do
    found[i] = argument()
  end
  return found
end
local groups = {}
for i = 1, number() do
  groups[i] = list()
end
local names, subjects = list(), list()
local LOOKS = 3000
local SCRATCH = 'worker:x:scratch'
local ALL = {
  'state:queued', 'state:delayed', 'state:running', 'state:completed', 'state:skipped', 'state:dead', 'state:cancelled',
}

if below < 0 then
  below = tonumber(call('GET', 'worker:seq') or 0)
end

-- An error's type is given with or without its module.
if error_type ~= '' then
  local errors = {}
  for _, name in ipairs(call('SMEMBERS', 'worker:names')) do
    if name == 'error:' .. error_type
      or string.sub(name, 1, 6) == 'error:' and string.sub(name, -#error_type - 1) == '.' .. error_type then
      table.insert(errors, name)
    end
  end
  if #errors == 0 then
    return { -1, 0 }
  end
  table.insert(groups, errors)
end

local function maps_of(segment, wanted)
  local keys = {}
  for i, name in ipairs(wanted) do
    keys[i] = map_of(segment, name)
  end
  return keys
end

-- The bits of a segment that one of the names has, as a key.
local function any_of(segment, wanted, scratch)
  if #wanted == 1 then
    return map_of(segment, wanted[1])
  end
  call('BITOP', 'OR', scratch, unpack(maps_of(segment, wanted)))
  return scratch
end

-- The segment's bits that match, as a key; nil: none does.
local function common(segment)
  local keys = maps_of(segment, names)
  for i, group in ipairs(groups) do
    table.insert(keys, any_of(segment, group, SCRATCH .. i))
  end
  if #keys == 0 then
    return any_of(segment, ALL, SCRATCH)
  end
  if #keys > 1 then
    if call('EXISTS', unpack(keys)) < #keys then
      return nil
    end
    call('BITOP', 'AND', SCRATCH, unpack(keys))
    return SCRATCH
  end
  return keys[1]
end

local segments, changed = {}, {}
local members = call('ZRANGE', 'worker:segments', 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
  table.insert(segments, { number = tonumber(members[i]), began = tonumber(members[i + 1]) })
end
table.sort(segments, function(a, b) return a.number > b.number end)
local fields = call('HGETALL', 'worker:changed')
for i = 1, #fields, 2 do
  changed[tonumber(fields[i])] = tonumber(fields[i + 1])
end

-- Whether messages of the segment can match by their time; and whether all of them do.
local function in_time(segment)
  local last = changed[segment.number] or now
  if since >= 0 and last < since or till >= 0 and segment.began > till then
    return false
  end
  return true, (since < 0 or segment.began >= since) and (till < 0 or last <= till)
end

local found, count, looks = { -1, 0 }, 0, 0

local function has_subjects(id)
  for _, subject in ipairs(subjects) do
    if not call('ZSCORE', 'worker:s:' .. subject, id) then
      return false
    end
  end
  return true
end

local function is_in_time(id)
  local head = call('GETRANGE', 'worker:m:' .. id, 0, 200)
  local at = tonumber(string.match(head, '^%d+\t%a+\t%d+\t%d+\t%d+\t%d+\t(%d+)\t') or 0)
  return (since < 0 or at >= since) and (till < 0 or at <= till)
end

-- Adds a message if it matches; answers whether the looking must end.
local function look_at(seq, id, check_time)
  if check_time or #subjects > 0 then
    looks = looks + 1
  end
  if id and has_subjects(id) and not (check_time and not is_in_time(id)) then
    local record = call('GET', 'worker:m:' .. id)
    if record then
      count = count + 1
      if most > 0 then
        table.insert(found, id)
        table.insert(found, record)
      end
    end
  end
  if most > 0 and count >= most or looks >= LOOKS then
    found[1] = seq
    return true
  end
  return false
end

local function look_through(segment, all_in_time)
  local first, key = segment.number * SEGMENT, common(segment.number)
  if not key then
    return false
  end
  if most == 0 and all_in_time and #subjects == 0 and first + SEGMENT <= below then
    count = count + call('BITCOUNT', key)
    return false
  end
  local map = call('GET', key) or ''
  if not string.find(map, '[^%z]') then
    return false
  end
  for byte = math.min(#map, math.floor((below - 1 - first) / 8) + 1), 1, -1 do
    local value = string.byte(map, byte)
    if value ~= 0 then
      for low = 0, 7 do
        local seq = first + byte * 8 - 1 - low
        if math.floor(value / 2 ^ low) % 2 == 1 and seq < below then
          local id = call('LINDEX', map_of(segment.number, 'ids'), seq - first)
          if look_at(seq, id, not all_in_time) then
            return true
          end
        end
      end
    end
  end
  return false
end

local function look_through_segments()
  for _, segment in ipairs(segments) do
    if segment.number * SEGMENT < below then
      local some, all = in_time(segment)
      if some and look_through(segment, all) then
        return
      end
    end
  end
end

-- Messages about something rare are looked at one by one.
local function bears(seq, name)
  return call('GETBIT', map_of(segment_of(seq), name), seq % SEGMENT) == 1
end
local function bears_one(seq, group)
  for _, name in ipairs(group) do
    if bears(seq, name) then
      return true
    end
  end
  return false
end
local function bears_all(seq)
  for _, name in ipairs(names) do
    if not bears(seq, name) then
      return false
    end
  end
  for _, group in ipairs(groups) do
    if not bears_one(seq, group) then
      return false
    end
  end
  return true
end

local function look_through_subject(subject)
  local members = call('ZREVRANGEBYSCORE', 'worker:s:' .. subject, '(' .. string.format('%.0f', below), '-inf', 'WITHSCORES')
  for i = 1, #members, 2 do
    local seq = tonumber(members[i + 1])
    if bears_all(seq) and look_at(seq, members[i], since >= 0 or till >= 0) then
      return
    end
  end
end

local rarest, fewest = nil, LOOKS
for _, subject in ipairs(subjects) do
  local size = call('ZCARD', 'worker:s:' .. subject)
  if size < fewest then
    rarest, fewest = subject, size
  end
end
if rarest then
  look_through_subject(rarest)
else
  look_through_segments()
end
call('DEL', SCRATCH, SCRATCH .. 1, SCRATCH .. 2, SCRATCH .. 3)
found[2] = count
return found
