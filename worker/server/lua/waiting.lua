-- include: records, streams
-- Tells whether a message of a queue waits, runs or is delayed.
-- Arguments: queue.
-- Answer: 1 or 0.
-- Keys: due.
local queue = argument()
for _, stream in ipairs(streams_of(queue)) do
  if call('XLEN', stream) > 0 then
    return 1
  end
end
for _, id in ipairs(call('ZRANGE', KEY.due, 0, -1)) do
  local record = load(id)
  if record and record.queue == queue then
    return 1
  end
end
return 0
