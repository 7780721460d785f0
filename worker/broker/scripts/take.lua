-- Takes messages for a worker process, more urgent ones first. Arguments: token, how many at most, then the queues,
-- the one whose turn it is first. Answers false when the process holds no lease, else the server's time in ms, the queues
-- that are paused and, for each message, what `describe` says.
local token, most = argument(), number()
if not call('ZSCORE', 'worker:leases', token) then
  return false
end
local taken = { now, paused_names }
for _, lane in ipairs(LANES) do
  for i = position + 1, #ARGV do
    if #taken - 2 < most and not paused[ARGV[i]] then
      local stream = 'worker:q:' .. ARGV[i] .. ':' .. lane
      local found = call('XREADGROUP', 'GROUP', 'workers', token, 'COUNT', most + 2 - #taken, 'STREAMS', stream, '>')
      if found then
        for _, entry in ipairs(found[1][2]) do
          local message = describe(stream, entry[1], entry[2])
          if message then
            table.insert(taken, message)
          end
        end
      end
    end
  end
end
return taken
