-- include: renamed
-- Reads a message.
-- Arguments: its id.
-- Answer: its record, or false.
-- Keys: record.
return with_name_of_today(call('GET', KEY.record(argument())))
