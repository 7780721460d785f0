-- include: server, keys
-- Counts the messages in each state.
-- Arguments: none. Answer: states and numbers, one after the other.
-- Keys: states.
return call('HGETALL', KEY.states)
