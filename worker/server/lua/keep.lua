-- include: retention
-- What a worker process does every now and then: renews its lease, takes over what dead processes held, and enqueues
-- delayed messages that are due. Arguments: token, lease in ms, what is known of the process (JSON), how often a message
-- may take its worker down, how many messages to promote at most, whether to look around too, retention in seconds of the
-- hour windows, limits of the history. To look around is to ask every stream who reads it, and to drop what the history
-- need not keep any more.
-- Answers: 1 if the lease was still held, ms until the next delayed message is due (-1: none), the newest wake-up's entry,
-- how many attempts were lost, the server's time in ms.
local token, lease, about = argument(), number(), argument()
local most_starts, most, look_around = number(), number(), argument() == '1'
local retention, limits = number(), read_limits()

local function renew()
  -- After a time in which nobody could renew, nobody takes over until all had the time to.
  local kept = tonumber(call('GET', KEY.kept_at) or now)
  if now - kept > lease then
    call('SET', KEY.patience, now + lease)
  end
  call('SET', KEY.kept_at, now)
  if not call('ZSCORE', KEY.leases, token) then
    return 0
  end
  call('ZADD', KEY.leases, now + lease, token)
  call('HSET', KEY.workers, token, about)
  return 1
end

local lost = 0
local function take_over(stream, entry, dead)
  local fields = call('XRANGE', stream, entry, entry)
  call('XACK', stream, 'workers', entry)
  call('XDEL', stream, entry)
  local id = fields[1] and fields[1][2][1] == 'i' and fields[1][2][2]
  local record = id and load(id)
  if not record then
    if fields[1] then
      call('XADD', stream, '*', unpack(fields[1][2]))
    end
    return
  end
  if FINAL[record.state] or not is_current(fields[1][2], record) then
    return
  end
  record.losses = record.losses + 1
  if record.state == 'running' then
    lost = lost + 1
    append(id, record, '{"s":"lost","t":' .. now .. ',"n":' .. record.attempts .. ',"w":' .. cjson.encode(dead)
      .. ',"x":"its worker died' .. (record.starts >= most_starts and '; dead letter' or '') .. '"}\n')
    mark_as(record.seq, 'ended:lost')
    count(record.actor, 'lost')
  end
  if record.state == 'running' and call('EXISTS', KEY.cancel(id)) == 1 then
    -- Somebody wanted it to end while it ran.
    set_state(record, 'cancelled')
    record.fence = record.fence + 1
  elseif record.starts >= most_starts then
    set_state(record, 'dead')
    record.fence = record.fence + 1
    mark_death(record.seq, 'lost')
  else
    put_again(id, record, nil, 'back')
  end
  save(id, record)
end

local function is_dead(consumer)
  local expires = call('ZSCORE', KEY.leases, consumer)
  return not expires or tonumber(expires) < now
end

-- Answers whether the dead process holds nothing of the stream any more.
local function take_over_all(stream, dead)
  local pending = call('XPENDING', stream, 'workers', '-', '+', 500, dead)
  for _, found in ipairs(pending) do
    take_over(stream, found[1], dead)
  end
  if #pending < 500 then
    call('XGROUP', 'DELCONSUMER', stream, 'workers', dead)
    return true
  end
  return false
end

local function reclaim()
  local expired = call('ZRANGEBYSCORE', KEY.leases, '-inf', '(' .. now)
  if (#expired == 0 and not look_around) or now < tonumber(call('GET', KEY.patience) or 0) then
    return false
  end
  local unfinished = {}
  for _, queue in ipairs(call('SMEMBERS', KEY.queues)) do
    for _, lane in ipairs(LANES) do
      local stream = KEY.stream(queue, lane)
      local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, 'workers')
      for _, consumer in ipairs(consumers.err and {} or consumers) do
        if is_dead(consumer[2]) and not take_over_all(stream, consumer[2]) then
          unfinished[consumer[2]] = true
        end
      end
    end
  end
  for _, dead in ipairs(expired) do
    if not unfinished[dead] then
      call('ZREM', KEY.leases, dead)
      call('HDEL', KEY.workers, dead)
    end
  end
  return next(unfinished) ~= nil
end

local function promote()
  local due = call('ZRANGEBYSCORE', KEY.due, '-inf', now, 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    call('ZREM', KEY.due, id)
    local record = load(id)
    if record and record.state == 'delayed' then
      record.state = 'queued'
      enqueue(id, record)
      save(id, record)
    end
  end
  local next_due = call('ZRANGE', KEY.due, 0, 0, 'WITHSCORES')[2]
  return next_due and math.max(0, tonumber(next_due) - now) or -1
end

local held = renew()
local more = reclaim()
local next_due = promote()
if more then
  next_due = 0
end
if look_around then
  retire(200, limits)
end
finish(retention)
local newest = call('XREVRANGE', KEY.wake, '+', '-', 'COUNT', 1)[1]
return { held, next_due, newest and newest[1] or '0-0', lost, now }
