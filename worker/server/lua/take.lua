-- include: describe
-- Takes messages for a worker process, more urgent ones first. Arguments: token, how many at most, then the queues,
-- the one whose turn it is first. Answers false when the process holds no lease, else the server's time in ms, the queues
-- that are paused and, for each message, what `describe` says.
local token, most = argument(), number()
if not call('ZSCORE', KEY.leases, token) then
  return false
end
-- Entries that are good for nothing any more are removed, and do not keep others from being read: so many at a time.
local MOST_REMOVED = 1000
local taken, removed = { now, paused_names }, 0

-- Answers whether there may be more that can be taken.
local function take_from(stream)
  local before = removed
  local found = call('XREADGROUP', 'GROUP', 'workers', token, 'COUNT', most + 2 - #taken, 'STREAMS', stream, '>')
  for _, entry in ipairs(found and found[1][2] or {}) do
    local message = describe(stream, entry[1], entry[2])
    if message then
      table.insert(taken, message)
    else
      removed = removed + 1
    end
  end
  return removed > before and removed < MOST_REMOVED and #taken - 2 < most
end

for _, lane in ipairs(LANES) do
  for i = position + 1, #ARGV do
    if #taken - 2 < most and not paused[ARGV[i]] then
      repeat
      until not take_from(KEY.stream(ARGV[i], lane))
    end
  end
end
return taken
