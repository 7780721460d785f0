-- include: records
-- Makes a dead letter of what cannot be read. Arguments: stream, entry, an id for it, queue, what it was (JSON), the
-- event's line.
local stream, entry, id, queue, payload, line = argument(), argument(), argument(), argument(), argument(), argument()
if call('XACK', stream, 'workers', entry) == 1 then
  call('XDEL', stream, entry)
  local record = load(id) or new_record(-1, queue, 'normal', '?', payload)
  record.fence = record.fence + 1
  set_state(record, 'dead')
  append(id, record, line)
  if record.seq then
    save(id, record)
  else
    create({ id }, { record })
  end
  local cause = string.match(line, '"r":%["([^"]*)"')
  mark_as(record.seq, 'ended:failed')
  mark_as(record.seq, 'error:' .. cause)
  mark_death(record.seq, cause)
end
finish(0)
return now
