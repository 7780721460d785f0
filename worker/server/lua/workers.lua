-- include: stopped
-- Describes the worker processes that have a lease, those whose lease has run out and was not noticed yet, and those that
-- have ended by themselves not long ago (leave.lua).
-- Arguments: none.
-- Answer: the server's time, then for each its name, when its lease ends (ms), when it has ended by itself (ms, or 0), and
-- what is known of it (JSON).
-- Keys: leases, stopped, workers.
local answer = { now }
local function describe(token, expires, ended)
  table.insert(answer, { token, expires, ended, call('HGET', KEY.workers, token) or '{}' })
end
local leases = call('ZRANGEBYSCORE', KEY.leases, '(0', '+inf', 'WITHSCORES')
for i = 1, #leases, 2 do
  describe(leases[i], tonumber(leases[i + 1]), 0)
end
local stopped = call('ZRANGEBYSCORE', KEY.stopped, '(' .. now - TOLD_FOR, '+inf', 'WITHSCORES')
for i = 1, #stopped, 2 do
  describe(stopped[i], 0, tonumber(stopped[i + 1]))
end
return answer
