-- include: server, keys
-- Reads a part of the counters since the first attempt of all: as a whole they may be so many that nobody else is answered
-- meanwhile.
-- Arguments: where to go on, 0 at first; about how many.
-- Answer: where to go on, 0 at the end; fields and values, one after the other. Some may come twice.
-- Keys: sums.
return call('HSCAN', KEY.sums, argument(), 'COUNT', number())
