-- include: records, streams
-- Which message has taken its process down. Of those that ran beside each other nobody can tell.

-- For each dead process: how many messages it held, and how many of them ran that a dead process had had before.
local had, suspects = {}, {}

local function find_suspects(stream, dead, entries)
  for _, entry in ipairs(entries) do
    local found = call('XRANGE', stream, entry[1], entry[1])[1]
    local record = found and found[2][1] == 'i' and load(found[2][2])
    if record and is_current(found[2], record.fence) then
      had[dead] = (had[dead] or 0) + 1
      if record.state == 'running' and record.losses > 0 then
        suspects[dead] = (suspects[dead] or 0) + 1
      end
    end
  end
end

-- Whether it is certain enough that a message has taken its process down, and others before. It must have been the only one
-- of its process that was lost before; or, if it was not, the only one at all: how many have begun is not known then.
local function is_certain(record, dead, most_starts)
  if record.state ~= 'running' or record.starts < most_starts then
    return false
  end
  return (record.losses > 0 and suspects or had)[dead] == 1
end
