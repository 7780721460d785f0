-- include: records
-- A process gives messages back that it has not begun: they are read before anything newer. Arguments: for each its
-- stream, entry, id and fence.
while position < #ARGV do
  local stream, entry, id, fence = argument(), argument(), argument(), number()
  local record = load(id)
  if call('XACK', stream, 'workers', entry) == 1 then
    call('XDEL', stream, entry)
    if record and record.fence == fence and not FINAL[record.state] then
      local at = record.at
      put_again(id, record, nil, 'back')
      record.at = at
      save(id, record)
    end
  end
end
finish(0)
return now
