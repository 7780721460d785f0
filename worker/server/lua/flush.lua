-- include: retention
-- Drops messages that wait in a queue, some at a time. Answers how many. Arguments: queue.
local queue, dropped = argument(), 0
for _, lane in ipairs(LANES) do
  local stream = KEY.stream(queue, lane)
  for _, entry in ipairs(call('XRANGE', stream, '-', '+', 'COUNT', 500)) do
    local record = entry[2][1] == 'i' and load(entry[2][2])
    call('XACK', stream, 'workers', entry[1])
    call('XDEL', stream, entry[1])
    -- That of a message which was cancelled meanwhile, or has gone elsewhere, is no more than an entry.
    if record and is_current(entry[2], record) then
      forget(entry[2][2], record)
    end
    dropped = dropped + 1
  end
end
for _, id in ipairs(call('ZRANGE', KEY.due, 0, -1)) do
  local record = load(id)
  if record and record.queue == queue then
    call('ZREM', KEY.due, id)
    forget(id, record)
    dropped = dropped + 1
  end
end
finish(0)
return dropped
