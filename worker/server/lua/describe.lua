-- include: records, streams
-- Describes entries to the process that was given them.
-- Keys: paused, record.

-- Queues that are paused: nobody is given their messages.
local paused, paused_names = {}, call('HKEYS', KEY.paused)
for _, queue in ipairs(paused_names) do
  paused[queue] = true
end

-- What a worker needs to know of an entry: stream, entry, id, fence, attempts, losses, since when it waits, payload. An
-- entry that names no message has an empty id, and what it held as its payload. One whose message has been cancelled or
-- purged meanwhile is removed, one that lies in another runner's stream is moved: nil.
local function describe(stream, entry, fields)
  local id = fields[1] == 'i' and fields[2]
  local text = id and call('GET', KEY.record(id))
  local fence, attempts, losses, at, payload, actor
  if text then
    fence, attempts, losses, at, payload, actor = decode_waiting(text)
  end
  if fence and is_current(fields, fence) then
    if is_misplaced(stream, actor) then
      move_entry(stream, entry, id, decode_record(text))
      return nil
    end
    return { stream, entry, id, fence, attempts, losses, at, payload }
  end
  if fence or id and not text then
    remove_entry(stream, entry)
    return nil
  end
  return { stream, entry, '', 1, 0, 0, now, table.concat(fields, ' ') }
end
