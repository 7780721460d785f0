-- include: request
-- Cancels messages. One that waits or is delayed ends at once; one that runs is ended by its worker, or when its worker is
-- found dead. Arguments: as request.lua, then ids. Answers for each with an empty text, or with the state in which it
-- cannot be cancelled.
local answers = {}

local function release_unique(id, record)
  local readable, message = pcall(cjson.decode, (split(record)))
  local unique = readable and type(message) == 'table' and type(message.options) == 'table' and message.options.unique
  if type(unique) == 'string' and call('GET', KEY.unique(unique)) == id then
    call('DEL', KEY.unique(unique))
  end
end

local function end_waiting(id, record)
  call('ZREM', KEY.due, id)
  set_state(record, 'cancelled')
  -- Its entry, and whoever has been given it already, are of no more use.
  record.fence = record.fence + 1
  release_unique(id, record)
end

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
      end_waiting(id, record)
    end
    note(id, record)
    save(id, record)
    table.insert(answers, '')
  end
end
finish_request()
return answers
