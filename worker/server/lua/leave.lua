-- include: stopped
-- A worker process was told to end, or ends now; neither is a crash. When it ends, others take over its messages at once.
-- Arguments: token, whether it ends now.
-- Answer: the server's time in ms.
-- Keys: ending, leases.
local token, ends_now = argument(), argument() == '1'
if call('ZSCORE', KEY.leases, token) then
  call('SADD', KEY.ending, token)
  if ends_now then
    call('ZADD', KEY.leases, 0, token)
    remember_stopped(token)
    forget_stopped()
  end
end
return now
