-- include: server, keys
-- Counts the bytes of messages that have ended, by state.
-- Arguments: none. Answer: states and numbers, one after the other; `warned`, and since when, in ms, if dead letters near their
-- bound.
-- Keys: bytes.
return call('HGETALL', KEY.bytes)
