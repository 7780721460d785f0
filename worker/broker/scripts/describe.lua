-- What a worker needs to know of an entry it was given: stream, entry, id, fence, attempts, losses, since when it waits,
-- payload. An entry that names no message has an empty id, and what it held as its payload.
local function describe(stream, entry, fields)
  local id = fields[1] == 'i' and fields[2]
  local record = id and load(id)
  if record then
    return { stream, entry, id, record.fence, record.attempts, record.losses, record.at, (split(record)) }
  end
  if id and not call('GET', 'worker:m:' .. id) then
    -- Forgotten meanwhile: purged.
    call('XACK', stream, 'workers', entry)
    call('XDEL', stream, entry)
    return nil
  end
  return { stream, entry, '', 1, 0, 0, now, table.concat(fields, ' ') }
end
