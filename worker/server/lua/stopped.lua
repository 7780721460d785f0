-- include: server, keys
-- Worker processes that have ended by themselves. They are told of for a while, and then forgotten.
-- Keys: stopped, workers.
local TOLD_FOR = 900000

local function has_stopped(token)
  return call('ZSCORE', KEY.stopped, token) ~= false
end

local function remember_stopped(token)
  call('ZADD', KEY.stopped, now, token)
end

local function forget_stopped()
  for _, token in ipairs(call('ZRANGEBYSCORE', KEY.stopped, '-inf', now - TOLD_FOR)) do
    call('HDEL', KEY.workers, token)
    call('ZREM', KEY.stopped, token)
  end
end
