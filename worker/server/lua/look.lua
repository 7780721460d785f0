-- include: describe, transition
-- Describes entries that a process was given without a description: while it waited, or in an answer that was lost. It
-- leaves out entries that the process no longer holds, and puts back those of a queue that is paused now.
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
