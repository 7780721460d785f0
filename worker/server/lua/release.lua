-- include: server, keys
-- Gives a task's lease up, unless somebody else has it.
-- Arguments: name, owner, fence.
-- Answer: 1.
-- Keys: lease.
local key, owner, fence = KEY.lease(argument()), argument(), argument()
if call('GET', key) == owner .. '\t' .. fence then
  call('DEL', key)
end
return 1
