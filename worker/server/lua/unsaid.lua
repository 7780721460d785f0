-- include: runners
-- Actors whose runner no living process says: what waits for that runner may lie where nobody looks.
-- Keys: leases, misplaced, runners, runners_said_by, runners_unsaid.

local function read_hash(key)
  local found, flat = {}, call('HGETALL', key)
  for i = 1, #flat, 2 do
    found[flat[i]] = flat[i + 1]
  end
  return found
end

-- Forgets the runners of actors of which no process has said them for so many ms, so that whoever reads the queue meets
-- their messages. A process that has such an actor says its runner again within a lease.
local function forget_unsaid(patience)
  local lives = {}
  for _, token in ipairs(call('ZRANGEBYSCORE', KEY.leases, now, '+inf')) do
    lives[token] = true
  end
  local said_by, since = read_hash(KEY.runners_said_by), read_hash(KEY.runners_unsaid)
  for actor, runner in pairs(read_hash(KEY.runners)) do
    if runner == 'thread' or lives[said_by[actor]] then
      if since[actor] then
        call('HDEL', KEY.runners_unsaid, actor)
      end
    elseif not since[actor] then
      call('HSET', KEY.runners_unsaid, actor, now_text)
    elseif now - tonumber(since[actor]) >= patience then
      for _, key in ipairs({ KEY.runners, KEY.runners_said_by, KEY.runners_unsaid }) do
        call('HDEL', key, actor)
      end
      call('SADD', KEY.misplaced, runner)
      runners[actor] = 'thread'
    end
  end
end
