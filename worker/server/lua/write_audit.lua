-- include: server, keys
-- Writes into the audit log what is no action on stored messages; request.lua does that for those that are. Refused
-- log-ins have a stream of their own: strangers, who make them, must not push out what people did.
-- Arguments: who, what was done, what was named, how often, ids.
-- Answer: the entry's id.
-- Keys: audit, refusals.
local by, action, target, count, ids = argument(), argument(), argument(), argument(), list()
local stream, most = KEY.audit, 10000
if action == 'log_in_refused' then
  stream, most = KEY.refusals, 1000
end
return call('XADD', stream, 'MAXLEN', '~', most, '*', 'by', by, 'action', action, 'target', target,
  'count', count, 'ids', table.concat(ids, ' '))
