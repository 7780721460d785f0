-- include: records
-- Renews a task's lease. Arguments: name, owner, fence, for how many ms. Answers 1 if it was still held.
local key, owner, fence, ms = KEY.lease(argument()), argument(), argument(), number()
if call('GET', key) ~= owner .. '\t' .. fence then
  return 0
end
call('PEXPIRE', key, ms)
return 1
