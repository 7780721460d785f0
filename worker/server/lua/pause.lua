-- include: request
-- Pauses a queue, or resumes it.
-- Arguments: as request.lua, with the queue as its target.
-- Answer: 1, or 0 when it was so already, or false when there is no such queue.
-- Keys: names, paused, queues.
if call('SISMEMBER', KEY.queues, target) + call('SISMEMBER', KEY.names, 'queue:' .. target) == 0 then
  return false
end
local changed
if action == 'pause' then
  changed = call('HSETNX', KEY.paused, target, cjson.encode({ by = by, at = now }))
else
  changed = call('HDEL', KEY.paused, target)
end
if changed == 1 then
  tell_workers(target)
  table.insert(done, target)
end
finish_request()
return changed
