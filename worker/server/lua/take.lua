-- include: describe
-- Takes messages for a worker process, more urgent ones first.
-- Arguments: token; how many runners it has room for, and for each its name and for how many messages; then the queues, the
-- one whose turn it is first.
-- Answer: false when the process holds no lease, else the server's time in ms, the queues that are paused and, for each
-- message, what `describe` says.
-- Keys: leases, stream.
local token = argument()
if not call('ZSCORE', KEY.leases, token) then
  return false
end
local rooms = {}
for i = 1, number() do
  rooms[i] = { runner = argument(), room = number() }
end
-- Entries that are good for nothing any more are removed, and do not keep others from being read: so many at a time.
local MOST_REMOVED = 1000
local taken, removed = { now, paused_names }, 0

-- Answers whether there may be more that can be taken.
local function take_from(stream, place)
  local before = removed
  local found = call('XREADGROUP', 'GROUP', 'workers', token, 'COUNT', place.room, 'STREAMS', stream, '>')
  for _, entry in ipairs(found and found[1][2] or {}) do
    local message = describe(stream, entry[1], entry[2])
    if message then
      table.insert(taken, message)
      place.room = place.room - 1
    else
      removed = removed + 1
    end
  end
  return removed > before and removed < MOST_REMOVED and place.room > 0
end

for _, priority in ipairs(PRIORITIES) do
  for i = position + 1, #ARGV do
    for _, place in ipairs(paused[ARGV[i]] and {} or rooms) do
      if place.room > 0 then
        repeat
        until not take_from(KEY.stream(ARGV[i], priority, place.runner), place)
      end
    end
  end
end
return taken
