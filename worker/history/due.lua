-- Finds delayed messages, the next to be due first. Arguments: how many at most, and the last one that is known with the
-- time when it is due (empty, -1: from the beginning). Answers their ids, times and records.
local most, last, due = number(), argument(), number()
local from = last == '' and 0 or call('ZRANK', 'worker:due', last)
if last ~= '' then
  from = from and from + 1 or call('ZCOUNT', 'worker:due', '-inf', due)
end
local found, members = {}, call('ZRANGE', 'worker:due', from, from + most - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local record = call('GET', 'worker:m:' .. members[i])
  if record then
    table.insert(found, { members[i], tonumber(members[i + 1]), record })
  end
end
return found
