-- include: transition
-- Begins every script by which a person acts. Its arguments come first: what is asked for, who asks, in which process
-- (host:pid), and what was named: ids, a filter, a queue. Each that is done is told in the message's history and in the
-- audit log.
-- Keys: audit, orders.
local action, by, where, target = argument(), argument(), argument(), argument()
local done = {}

-- Tells in a message's history what was asked for.
local function tell(id, record)
  table.insert(done, id)
  append(id, record, encode_line('requested', {
    t = now, w = where, n = record.attempts > 0 and record.attempts, x = action, y = by,
    i = record.attempts .. '.' .. action .. '.' .. now_text,
  }))
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
