-- include: records
-- Answers with what people did, newest first. Arguments: how many entries at most.
return call('XREVRANGE', KEY.audit, '+', '-', 'COUNT', number())
