-- Stores new messages that are neither delayed nor unique, and enqueues them: what `enqueue` does in the usual case, in
-- a fraction of its time, for it needs nothing of records.lua, whose layout this is. Arguments: for each its id, payload,
-- queue, lane, actor; some hundreds of messages at most.
-- Answers for each 1, or 0 if nothing was done, since there is a record of that id: `enqueue` knows what to do then.
local call = redis.call
local clock = call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))

local SEGMENT = 4096
local MOST_BITS = 32

local seq = tonumber(call('GET', 'worker:seq') or 0)
local answers = {}

-- A run: messages that follow each other in one segment, of one queue and actor. Their indexes are stored at once.
local ids, first, of_queue, of_actor = {}, 0, '', ''

-- Sets the bits of the run in a map, from this one on.
local function mark(map, from)
  for bit = from, from + #ids - 1, MOST_BITS do
    local width = math.min(MOST_BITS, from + #ids - bit)
    if width == 1 then
      call('SETBIT', map, bit, 1)
    else
      call('BITFIELD', map, 'SET', 'u' .. width, bit, 2 ^ width - 1)
    end
  end
end

local function store_run()
  local segment, bit = math.floor(first / SEGMENT), first % SEGMENT
  local maps = 'worker:x:' .. segment .. ':'
  call('INCRBY', 'worker:seq', #ids)
  call('RPUSH', maps .. 'ids', unpack(ids))
  mark(maps .. 'actor:' .. of_actor, bit)
  mark(maps .. 'queue:' .. of_queue, bit)
  mark(maps .. 'state:queued', bit)
  call('SADD', 'worker:names', 'actor:' .. of_actor, 'queue:' .. of_queue, 'state:queued')
  call('HINCRBY', 'worker:states', 'queued', #ids)
  call('HINCRBY', 'worker:depths', of_queue .. '\tqueued', #ids)
  call('HINCRBY', 'worker:kept', segment, #ids)
  call('HSET', 'worker:changed', segment, now)
  if bit == 0 then
    call('ZADD', 'worker:segments', now, segment)
  end
end

for i = 1, #ARGV, 5 do
  local id, payload, queue, lane, actor = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local is_new = call('SET', 'worker:m:' .. id, seq .. '\tqueued\t1\t0\t0\t0\t' .. now .. '\t0\t' .. lane .. '\t' .. queue
    .. '\t' .. actor .. '\t\n' .. payload .. '\n', 'NX')
  answers[#answers + 1] = is_new and 1 or 0
  if is_new then
    if #ids > 0 and (queue ~= of_queue or actor ~= of_actor or seq % SEGMENT == 0) then
      store_run()
      ids = {}
    end
    if #ids == 0 then
      first, of_queue, of_actor = seq, queue, actor
    end
    ids[#ids + 1] = id
    seq = seq + 1
    call('XADD', 'worker:q:' .. queue .. ':' .. lane, '*', 'i', id)
  end
end
if #ids > 0 then
  store_run()
end
return answers
