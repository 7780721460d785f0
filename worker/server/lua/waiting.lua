-- include: records
-- Answers 1 if a message of the queue waits, runs or is delayed. Arguments: queue.
local queue = argument()
for _, lane in ipairs(LANES) do
  if call('XLEN', KEY.stream(queue, lane)) > 0 then
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
