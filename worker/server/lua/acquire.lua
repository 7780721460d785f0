-- include: server, keys
-- Takes a task's lease. An owner's newer delivery takes it over from the older; an older one does not get it back.
-- Arguments: name, owner (a message's id), fence, for how many ms.
-- Answer: false, or the owner who has it.
-- Keys: lease.
local key, owner, fence, ms = KEY.lease(argument()), argument(), number(), number()
local held = call('GET', key)
if held then
  local holder, holders_fence = string.match(held, '^(.*)\t(%d+)$')
  if holder ~= owner or tonumber(holders_fence) > fence then
    return holder
  end
end
call('SET', key, owner .. '\t' .. fence, 'PX', ms)
return false
