-- Describes entries that a process was given without having seen them described: while it waited, or in an answer that
-- was lost. Those it does not hold any more are left out. Arguments: token; for each its stream and entry.
local token = argument()
local described = { now }
while position < #ARGV do
  local stream, entry = argument(), argument()
  if call('XPENDING', stream, 'workers', entry, entry, 1, token)[1] then
    local found = call('XRANGE', stream, entry, entry)[1]
    local message = found and describe(stream, entry, found[2])
    if message then
      table.insert(described, message)
    end
  end
end
return described
