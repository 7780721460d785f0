-- include: describe
-- Takes messages for a worker process, more urgent ones first.
-- Arguments: token; how many messages that a dead process has had it may begin, of those that were lost more than once, and
-- of those that were lost once; how many runners it has room for, and for each its name and for how many messages; then the
-- queues, the one whose turn it is first.
-- Answer: false when the process holds no lease, else the server's time in ms, the queues that are paused and, for each
-- message, what `describe` says.
-- Keys: leases, stream.
local token = argument()
if not call('ZSCORE', KEY.leases, token) then
  return false
end
local allowed, rooms = { suspect = number(), lost = number() }, {}
for i = 1, number() do
  rooms[i] = { runner = argument(), room = number() }
end
-- Entries that are good for nothing any more are removed, and do not keep others from being read: so many at a time.
local MOST_REMOVED = 1000
local taken, removed = { now, paused_names }, 0

-- How many messages of a priority may be taken where there is so much room.
local function most_of(priority, room)
  return math.min(room, allowed[priority] or room)
end

local function count_taken(priority, place)
  place.room = place.room - 1
  if priority == 'suspect' then
    -- It begins alone.
    allowed.suspect, allowed.lost = 0, 0
  elseif priority == 'lost' then
    allowed.lost = allowed.lost - 1
  end
end

-- Answers whether there may be more that can be taken.
local function take_from(stream, priority, place)
  local before, most = removed, most_of(priority, place.room)
  local found = call('XREADGROUP', 'GROUP', 'workers', token, 'COUNT', most, 'STREAMS', stream, '>')
  for _, entry in ipairs(found and found[1][2] or {}) do
    local message = describe(stream, entry[1], entry[2])
    if message then
      table.insert(taken, message)
      count_taken(priority, place)
    else
      removed = removed + 1
    end
  end
  return removed > before and removed < MOST_REMOVED and most_of(priority, place.room) > 0
end

for _, priority in ipairs(PRIORITIES) do
  for i = position + 1, #ARGV do
    for _, place in ipairs(paused[ARGV[i]] and {} or rooms) do
      if most_of(priority, place.room) > 0 then
        repeat
        until not take_from(KEY.stream(ARGV[i], priority, place.runner), priority, place)
      end
    end
  end
end
return taken
