-- include: retention, streams
-- Drops messages that wait in a queue, some at a time.
-- Arguments: queue.
-- Answer: how many.
-- Keys: due.
local queue, dropped = argument(), 0
for _, stream in ipairs(streams_of(queue)) do
  for _, entry in ipairs(call('XRANGE', stream, '-', '+', 'COUNT', 500)) do
    local record = entry[2][1] == 'i' and load(entry[2][2])
    remove_entry(stream, entry[1])
    -- That of a message which was cancelled meanwhile, or has gone elsewhere, is no more than an entry.
    if record and is_current(entry[2], record.fence) then
      forget(entry[2][2], record)
    end
    dropped = dropped + 1
  end
end
for _, id in ipairs(call('ZRANGE', KEY.due, 0, -1)) do
  local record = load(id)
  if record and record.queue == queue then
    forget(id, record)
    dropped = dropped + 1
  end
end
finish(0)
return dropped
