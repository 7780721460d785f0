-- include: server, keys
-- A worker process ends: what it still holds is left to the others, at once.
-- Arguments: token.
-- Answer: the server's time in ms.
-- Keys: leases.
call('ZADD', KEY.leases, 'XX', 0, argument())
return now
