-- include: server, keys
-- Counts dead letters by cause.
-- Arguments: none.
-- Answer: causes, each followed by how many there are.
-- Keys: ended, map, names.
local PREFIX_OF_CAUSES = 'cause:'
local causes = {}
for _, name in ipairs(call('SMEMBERS', KEY.names)) do
  if string.sub(name, 1, #PREFIX_OF_CAUSES) == PREFIX_OF_CAUSES then
    table.insert(causes, name)
  end
end
local counts = {}
for _, segment in ipairs(call('ZRANGE', KEY.ended('dead'), 0, -1)) do
  for _, cause in ipairs(causes) do
    local size = call('BITCOUNT', KEY.map(segment, cause))
    if size > 0 then
      counts[cause] = (counts[cause] or 0) + size
    end
  end
end
local answer = {}
for cause, size in pairs(counts) do
  table.insert(answer, string.sub(cause, #PREFIX_OF_CAUSES + 1))
  table.insert(answer, size)
end
return answer
