-- include: server, keys
-- Describes the worker processes that have a lease, or whose lease has run out and was not noticed yet; not those that have
-- ended by themselves (leave.lua).
-- Arguments: none.
-- Answer: the server's time, then for each its name, when its lease ends (ms), and what is known of it (JSON).
-- Keys: leases, workers.
local answer = { now }
local leases = call('ZRANGEBYSCORE', KEY.leases, '(0', '+inf', 'WITHSCORES')
for i = 1, #leases, 2 do
  table.insert(answer, { leases[i], tonumber(leases[i + 1]), call('HGET', KEY.workers, leases[i]) or '{}' })
end
return answer
