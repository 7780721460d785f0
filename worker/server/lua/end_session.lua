-- include: server, keys
-- Ends a session of the web before its time.
-- Arguments: its id, the second in which it would end by itself.
-- Answer: 1.
-- Keys: logged_out.
local id, ending = argument(), argument()
call('ZREMRANGEBYSCORE', KEY.logged_out, '-inf', math.floor(now / 1000))
call('ZADD', KEY.logged_out, ending, id)
return 1
