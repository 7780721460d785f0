-- include: server, keys
-- Reads the counters since the first attempt of all.
-- Arguments: none.
-- Answer: fields and values, one after the other.
-- Keys: sums.
return call('HGETALL', KEY.sums)
