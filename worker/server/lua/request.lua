-- include: records
-- Begins every script by which a person acts. Arguments: what is asked for, who asks, in which process (host:pid), and
-- what was named: ids, a filter, a queue. Each that is done is told in the message's history and in the audit log.
local action, by, where, target = argument(), argument(), argument(), argument()
local done = {}

local function note(id, record)
  table.insert(done, id)
  append(id, record, '{"s":"requested","t":' .. now_text .. ',"w":' .. cjson.encode(where) .. ',"i":"' .. record.attempts
    .. '.' .. action .. '.' .. now_text .. '"' .. (record.attempts > 0 and ',"n":' .. record.attempts or '')
    .. ',"x":"' .. action .. '","y":' .. cjson.encode(by) .. '}\n')
end

-- Tells the worker processes, which all read this.
local function tell_workers(what)
  call('XADD', KEY.orders, 'MAXLEN', '~', 10000, '*', action, what)
end

local function finish_request()
  if #done > 0 then
    call('XADD', KEY.audit, 'MAXLEN', '~', 10000, '*', 'by', by, 'action', action, 'target', target,
      'count', #done, 'ids', table.concat(done, ' ', 1, math.min(#done, 100)))
  end
  finish(0)
end
