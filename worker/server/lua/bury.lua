-- include: transition
-- Makes a dead letter of an entry that cannot be read.
-- Arguments: stream, entry, an id for it, queue, its content (JSON), the event's line.
-- Answer: the server's time in ms.
local stream, entry, id, queue, payload, line = argument(), argument(), argument(), argument(), argument(), argument()
if remove_entry(stream, entry) then
  local record = load(id)
  if not record then
    record = new_record(queue, 'normal', '?', payload, '')
    index_new({ id }, { record })
  end
  append(id, record, line)
  local cause = errors_in(line)()
  mark_end(record, 'failed', cause)
  transition(id, record, 'dead', { cause = cause })
  save(id, record)
end
finish(0)
return now
