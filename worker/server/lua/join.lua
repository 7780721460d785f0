-- include: records
-- A worker process begins: it gets a lease, and the queues their groups. Arguments: token, lease in ms (0: it reads more
-- queues now, under the lease that it has or has lost), what is known of the process (JSON), then the queues. Answers: the
-- server's time in ms, the layout's version, the newest order's entry.
local token, lease, about = argument(), number(), argument()
if lease > 0 then
  call('ZADD', 'worker:leases', now + lease, token)
end
if call('ZSCORE', 'worker:leases', token) then
  call('HSET', 'worker:workers', token, about)
end
call('HSETNX', 'worker:layout', 'version', 1)
for i = position + 1, #ARGV do
  call('SADD', 'worker:queues', ARGV[i])
  for _, lane in ipairs(LANES) do
    redis.pcall('XGROUP', 'CREATE', 'worker:q:' .. ARGV[i] .. ':' .. lane, 'workers', '0', 'MKSTREAM')
  end
end
local newest = call('XREVRANGE', 'worker:orders', '+', '-', 'COUNT', 1)[1]
return { now, tonumber(call('HGET', 'worker:layout', 'version')), newest and newest[1] or '0-0' }
