-- include: server, keys
-- Lists the actions of people, and refused log-ins.
-- Arguments: how many entries at most.
-- Answer: the entries of both streams, newest first.
-- Keys: audit, refusals.
local most = number()
local found = call('XREVRANGE', KEY.audit, '+', '-', 'COUNT', most)
for _, entry in ipairs(call('XREVRANGE', KEY.refusals, '+', '-', 'COUNT', most)) do
  table.insert(found, entry)
end
local function moment_of(entry)
  local milliseconds, counted = string.match(entry[1], '^(%d+)-(%d+)$')
  return tonumber(milliseconds), tonumber(counted)
end
table.sort(found, function(one, other)
  local at, nth = moment_of(one)
  local other_at, other_nth = moment_of(other)
  return at > other_at or (at == other_at and nth > other_nth)
end)
return { unpack(found, 1, math.min(#found, most)) }
