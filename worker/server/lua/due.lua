-- include: renamed
-- Finds delayed messages, the next to be due first.
-- Arguments: how many at most, and the last one that is known with the time when it is due (empty, -1: from the beginning).
-- Answer: for each its id, its time and its record.
-- Keys: due, record.
local most, last, due = number(), argument(), number()
local from = 0
if last ~= '' then
  -- It may not be there any more, or be due at another time: what counts is where it was.
  from = call('ZCOUNT', KEY.due, '-inf', '(' .. string.format('%.0f', due))
  for _, id in ipairs(call('ZRANGEBYSCORE', KEY.due, due, due)) do
    from = from + (id <= last and 1 or 0)
  end
end
local found, members = {}, call('ZRANGE', KEY.due, from, from + most - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local record = call('GET', KEY.record(members[i]))
  if record then
    table.insert(found, { members[i], tonumber(members[i + 1]), with_name_of_today(record) })
  end
end
return found
