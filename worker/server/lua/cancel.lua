-- include: request
-- Cancels messages. One that waits or is delayed ends at once; one that runs is ended by its worker, or when its worker is
-- found dead.
-- Arguments: as request.lua, then ids.
-- Answer: for each an empty text, or the state in which it cannot be cancelled.
-- Keys: cancel.
local answers = {}
while position < #ARGV do
  local id = argument()
  local record = load(id)
  if not record then
    table.insert(answers, 'unknown')
  elseif FINAL[record.state] then
    table.insert(answers, record.state)
  elseif record.queue == '' then
    table.insert(answers, 'outside a worker')
  else
    -- Who hears of it late must not take a later delivery for this one.
    tell_workers(id .. ' ' .. record.fence)
    if record.state == 'running' then
      call('SET', KEY.cancel(id), by, 'EX', 86400)
    else
      transition(id, record, 'cancelled')
    end
    tell(id, record)
    save(id, record)
    table.insert(answers, '')
  end
end
finish_request()
return answers
