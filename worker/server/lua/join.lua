-- include: records
-- A worker process begins: it gets a lease, and the queues their groups. Arguments: token, lease in ms (0: it reads more
-- queues now, under the lease that it has or has lost), what is known of the process (JSON), then the queues. Answers: the
-- server's time in ms, the newest order's entry.
local token, lease, about = argument(), number(), argument()
if lease > 0 then
  call('ZADD', KEY.leases, now + lease, token)
end
if call('ZSCORE', KEY.leases, token) then
  call('HSET', KEY.workers, token, about)
end
call('HSETNX', KEY.layout, 'version', 2)
for i = position + 1, #ARGV do
  call('SADD', KEY.queues, ARGV[i])
  for _, lane in ipairs(LANES) do
    redis.pcall('XGROUP', 'CREATE', KEY.stream(ARGV[i], lane), 'workers', '0', 'MKSTREAM')
  end
end
local newest = call('XREVRANGE', KEY.orders, '+', '-', 'COUNT', 1)[1]
return { now, newest and newest[1] or '0-0' }
