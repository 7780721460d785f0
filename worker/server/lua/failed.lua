-- include: wanted
-- Finds messages of which an attempt has failed or was lost, and dead letters: the last failure first. It stops before it
-- has found all when it has had to look at many.
-- Arguments: as wanted.lua; the number below which to look is that of a failure.
-- Answer: the number below which to go on (-1: there are no more) and how many were found, then their ids and records.
-- Keys: failures, map, record.
local LOOKS = 3000
local AT_ONCE = 100
local found, count, looks = { -1, 0 }, 0, 0

local function look_at(seq)
  local id = bears_all(seq) and call('LINDEX', KEY.map(segment_of(seq), 'ids'), seq % SEGMENT)
  local record = id and has_subjects(id) and not (check_time and not is_in_time(id)) and call('GET', KEY.record(id))
  if record then
    count = count + 1
    table.insert(found, id)
    table.insert(found, with_name_of_today(record))
  end
end

local function look_through(from)
  local members = call('ZREVRANGEBYSCORE', KEY.failures, from, '-inf', 'WITHSCORES', 'LIMIT', 0, AT_ONCE)
  for i = 1, #members, 2 do
    look_at(tonumber(members[i]))
    looks = looks + 1
    if count >= most or looks >= LOOKS then
      found[1] = tonumber(members[i + 1])
      return nil
    end
  end
  return #members == 2 * AT_ONCE and '(' .. members[#members] or nil
end

local from = below < 0 and '+inf' or '(' .. string.format('%.0f', below)
while from do
  from = look_through(from)
end
found[2] = count
return found
