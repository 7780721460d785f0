-- include: records
-- Answers with the counters of all actors since the first attempt of all, as fields and values.
return call('HGETALL', KEY.sums)
