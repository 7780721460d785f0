-- include: server, keys
-- Tells whether a session of the web was ended before its time.
-- Arguments: its id.
-- Answer: 1 or 0.
-- Keys: logged_out.
return call('ZSCORE', KEY.logged_out, argument()) and 1 or 0
