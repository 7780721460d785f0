-- include: server, keys
-- A worker process was told to end, or ends now: then what it still holds is left to the others, at once. Neither is a crash.
-- Arguments: token, whether it ends now.
-- Answer: the server's time in ms.
-- Keys: ending, leases.
local token, ends_now = argument(), argument() == '1'
if call('ZSCORE', KEY.leases, token) then
  call('SADD', KEY.ending, token)
  if ends_now then
    call('ZADD', KEY.leases, 0, token)
  end
end
return now
