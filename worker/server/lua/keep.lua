-- include: lost, suspects, bytes, stopped, unsaid
-- The heartbeat of a worker process: it renews its lease, takes over the messages of dead processes, and enqueues delayed
-- messages that are due. To look around is to look at the readers of every stream, to move entries from wrong streams, and
-- to drop messages that the history need not keep any more.
-- Arguments: token, lease in ms, what is known of the process (JSON), how often a message may take its worker down, how many
-- messages to promote at most, whether to look around too, retention in seconds of the hour windows, limits of the history.
-- Answer: 1 if the lease was still held, ms until the next delayed message is due (-1: none), the newest wake-up's entry,
-- how many attempts were lost, the server's time in ms, the bytes of dead letters if they near their bound (else 0).
-- Keys: cancel, due, ending, kept_at, leases, misplaced, patience, queues, stream, wake, workers.
local token, lease, about = argument(), number(), argument()
local most_starts, most, look_around = number(), number(), argument() == '1'
local retention, limits, bounds = number(), read_limits(), read_bounds()
local SOON = 50

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

-- How the attempts of a process ended that is gone.
local function ending_of(was_told)
  if was_told then
    return 'cancelled', 'its worker was told to end'
  end
  return 'lost', 'its worker died'
end

-- Whether the entry is that of an attempt which was cancelled as it began, and whose end nobody has told: commit.lua.
local function runs_as_cancelled(id, record, fields)
  return record.state == 'cancelled' and tonumber(fields[4]) == record.fence - 1 and call('GET', KEY.cancel(id)) == ''
end

local function take_over(stream, entry, dead, was_told)
  local fields = call('XRANGE', stream, entry, entry)
  remove_entry(stream, entry)
  local id = fields[1] and fields[1][2][1] == 'i' and fields[1][2][2]
  local record = id and load(id)
  if not record then
    if fields[1] then
      call('XADD', stream, '*', unpack(fields[1][2]))
    end
    return
  end
  local kind, text = ending_of(was_told)
  if not FINAL[record.state] and is_current(fields[1][2], record.fence) then
    give_to_others(id, record, dead, kind, text, is_certain(record, dead, most_starts))
  elseif runs_as_cancelled(id, record, fields[1][2]) then
    call('DEL', KEY.cancel(id))
    end_attempt(id, record, dead, kind, text, false)
    save(id, record)
  end
end

local function is_dead(consumer)
  local expires = call('ZSCORE', KEY.leases, consumer)
  return not expires or tonumber(expires) < now
end

-- What dead processes hold: for each stream and process some entries at a time.
local MOST_TAKEN_OVER = 500
local function all_that_is_left()
  local left = {}
  for _, queue in ipairs(call('SMEMBERS', KEY.queues)) do
    for _, stream in ipairs(streams_of(queue)) do
      local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, 'workers')
      for _, consumer in ipairs(consumers.err and {} or consumers) do
        if is_dead(consumer[2]) then
          local entries = call('XPENDING', stream, 'workers', '-', '+', MOST_TAKEN_OVER, consumer[2])
          table.insert(left, { stream = stream, dead = consumer[2], entries = entries })
        end
      end
    end
  end
  return left
end

-- Answers whether the dead process holds nothing of the stream any more.
local function take_over_all(stream, dead, entries)
  local was_told = #entries > 0 and call('SISMEMBER', KEY.ending, dead) == 1
  for _, entry in ipairs(entries) do
    take_over(stream, entry[1], dead, was_told)
  end
  if #entries < MOST_TAKEN_OVER then
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
  local unfinished, all = {}, all_that_is_left()
  -- All of them before any is taken over: which it was is seen only by those beside it.
  for _, left in ipairs(all) do
    find_suspects(left.stream, left.dead, left.entries)
  end
  for _, left in ipairs(all) do
    if not take_over_all(left.stream, left.dead, left.entries) then
      unfinished[left.dead] = true
    end
  end
  for _, dead in ipairs(expired) do
    if not unfinished[dead] then
      call('ZREM', KEY.leases, dead)
      call('SREM', KEY.ending, dead)
      if not has_stopped(dead) then
        call('HDEL', KEY.workers, dead)
      end
    end
  end
  return next(unfinished) ~= nil
end

local function promote()
  local due = call('ZRANGEBYSCORE', KEY.due, '-inf', now, 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    local record = load(id)
    if record and record.state == 'delayed' then
      transition(id, record, 'queued', { at = record.at })
      save(id, record)
    else
      call('ZREM', KEY.due, id)
    end
  end
  local next_due = call('ZRANGE', KEY.due, 0, 0, 'WITHSCORES')[2]
  return next_due and math.max(0, tonumber(next_due) - now) or -1
end

-- Moves what waits in the stream of a runner that is not its actor's any more; some of it at a time. Answers whether that
-- was all, and how many were moved.
local MOST_MOVED = 1000
local function move_from(stream)
  local moved, entries = 0, call('XRANGE', stream, after_the_given(stream), '+', 'COUNT', MOST_MOVED)
  for _, entry in ipairs(entries) do
    local id = entry[2][1] == 'i' and entry[2][2]
    local record = id and load(id)
    if record and is_current(entry[2], record.fence) and is_misplaced(stream, record.actor) then
      move_entry(stream, entry[1], id, record)
      moved = moved + 1
    end
  end
  return #entries < MOST_MOVED, moved
end

-- Answers whether more can be moved at once.
local function move_misplaced()
  local may_go_on = false
  for _, runner in ipairs(call('SMEMBERS', KEY.misplaced)) do
    local is_all = true
    for _, queue in ipairs(call('SMEMBERS', KEY.queues)) do
      for _, priority in ipairs(PRIORITIES) do
        local is_whole, moved = move_from(KEY.stream(queue, priority, runner))
        is_all = is_all and is_whole
        may_go_on = may_go_on or moved > 0 and not is_whole
      end
    end
    if is_all then
      call('SREM', KEY.misplaced, runner)
    end
  end
  return may_go_on
end

local held = renew()
local more = reclaim()
local next_due, dead_bytes = promote(), 0
if more then
  next_due = 0
end
if look_around then
  forget_unsaid(3 * lease)
  if move_misplaced() then
    next_due = 0
  end
  forget_stopped()
  retire(200, limits)
  if keep_within(bounds.history, 200) then
    next_due = next_due < 0 and SOON or math.min(next_due, SOON)
  end
  dead_bytes = keep_dead_within(bounds.dead, 2 * lease, 200)
end
finish(retention)
local newest = call('XREVRANGE', KEY.wake, '+', '-', 'COUNT', 1)[1]
return { held, next_due, newest and newest[1] or '0-0', lost, now, dead_bytes }
