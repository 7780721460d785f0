-- include: server, keys
-- Reads a message.
-- Arguments: its id.
-- Answer: its record, or false.
-- Keys: record.
return call('GET', KEY.record(argument()))
