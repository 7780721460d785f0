-- include: transition
-- A process gives messages back that it has not begun: they are read before anything newer.
-- Arguments: for each its stream, entry, id and fence.
-- Answer: the server's time in ms.
while position < #ARGV do
  local stream, entry, id, fence = argument(), argument(), argument(), number()
  local record = load(id)
  if remove_entry(stream, entry) and record and record.fence == fence and not FINAL[record.state] then
    transition(id, record, 'queued', { at = record.at, priority = 'back' })
    save(id, record)
  end
end
finish(0)
return now
