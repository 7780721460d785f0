-- include: server, keys
-- Renews a task's lease.
-- Arguments: name, owner, fence, for how many ms.
-- Answer: 1 if it was still held, else 0.
-- Keys: lease.
local key, owner, fence, ms = KEY.lease(argument()), argument(), argument(), number()
if call('GET', key) ~= owner .. '\t' .. fence then
  return 0
end
call('PEXPIRE', key, ms)
return 1
