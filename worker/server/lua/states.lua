-- include: records
-- Answers with how many messages are in each state.
return call('HGETALL', KEY.states)
