-- include: records
-- Answers with a message's record. Arguments: its id.
return call('GET', KEY.record(argument()))
