-- include: describe, transition
-- Describes entries that a process was given without having seen them described: while it waited, or in an answer that
-- was lost. Those it does not hold any more are left out, and those of a queue that was paused meanwhile are put back.
-- Arguments: token; for each its stream and entry.
-- Answer: as take.lua.
local token = argument()
local described = { now, paused_names }

local function put_back(message)
  local stream, entry, id = unpack(message)
  local record = load(id)
  if not record or not paused[record.queue] then
    return false
  end
  remove_entry(stream, entry)
  transition(id, record, 'queued', { at = record.at, priority = 'back' })
  save(id, record)
  return true
end

while position < #ARGV do
  local stream, entry = argument(), argument()
  if call('XPENDING', stream, 'workers', entry, entry, 1, token)[1] then
    local found = call('XRANGE', stream, entry, entry)[1]
    local message = found and describe(stream, entry, found[2])
    if message and not put_back(message) then
      table.insert(described, message)
    end
  end
end
finish(0)
return described
