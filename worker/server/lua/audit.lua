-- include: server, keys
-- Tells what people did.
-- Arguments: how many entries at most.
-- Answer: the stream's entries, newest first.
-- Keys: audit.
return call('XREVRANGE', KEY.audit, '+', '-', 'COUNT', number())
