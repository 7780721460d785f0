-- include: streams
-- A worker process begins: it gets a lease, and its queues their streams.
-- Arguments: token, lease in ms (0: it joined before, and says again what it reads and runs), what is known of the process
-- (JSON); how many runners it has, and these; how many queues it reads, and these; then for each of its actors the
-- name and the runner. An old name of an actor is one of its own, with the actor's name behind it after the character 31.
-- Answer: the server's time in ms, the newest order's entry.
-- Keys: layout, leases, misplaced, orders, queues, renamed, runners, runners_said_by, stream, workers.
local token, lease, about, own_runners, own_queues = argument(), number(), argument(), list(), list()
if lease > 0 then
  call('ZADD', KEY.leases, now + lease, token)
end
if call('ZSCORE', KEY.leases, token) then
  call('HSET', KEY.workers, token, about)
end
call('HSETNX', KEY.layout, 'version', 2)

-- Sets the runner of an actor; answers whether it did. One that has joined before only takes the place of a process that
-- is gone: its runner may be one that no process has any more.
local function set_runner(actor, runner)
  local by = call('HGET', KEY.runners_said_by, actor)
  if lease == 0 and by and tonumber(call('ZSCORE', KEY.leases, by) or 0) >= now then
    return false
  end
  local before = runner_of(actor)
  if runner ~= before then
    -- What waits for the other runner is moved.
    call('SADD', KEY.misplaced, before)
  end
  call('HSET', KEY.runners, actor, runner)
  call('HSET', KEY.runners_said_by, actor, token)
  return true
end

local function set_name(actor, new)
  if new == '' then
    call('HDEL', KEY.renamed, actor)
  else
    call('HSET', KEY.renamed, actor, new)
  end
end

local has_runner = {}
for _, runner in ipairs(own_runners) do
  remember_runner(runner)
  has_runner[runner] = true
end

-- While a queue had no readers, nobody moved what waits in it for runners that its actors had before. What lies in a stream
-- of its own, this process comes upon.
local function look_through_others()
  for _, runner in ipairs(all_runners()) do
    if not has_runner[runner] then
      call('SADD', KEY.misplaced, runner)
    end
  end
end

while position < #ARGV do
  local name, new = string.match(argument(), '^([^\31]*)\31?(.*)$')
  if set_runner(name, argument()) then
    set_name(name, new)
  end
end
for _, queue in ipairs(own_queues) do
  if call('SADD', KEY.queues, queue) == 1 then
    look_through_others()
  end
  for _, priority in ipairs(PRIORITIES) do
    for _, runner in ipairs(own_runners) do
      redis.pcall('XGROUP', 'CREATE', KEY.stream(queue, priority, runner), 'workers', '0', 'MKSTREAM')
    end
  end
end
local newest = call('XREVRANGE', KEY.orders, '+', '-', 'COUNT', 1)[1]
return { now, newest and newest[1] or '0-0' }
