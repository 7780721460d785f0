-- include: keys
-- Stores new messages that are neither delayed nor unique, and enqueues them: what `enqueue` does in the usual case, in
-- a fraction of its time, for it needs nothing of records.lua, whose layout this is. Arguments: for each its id, payload,
-- queue, lane, actor; some hundreds of messages at most.
-- Answers for each 1, or 0 if nothing was done, since there is a record of that id: `enqueue` knows what to do then.
local call = redis.call
local clock = call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))

local SEGMENT = 4096
local MOST_BITS = 32

-- The time as 48 bits.
local now_bits, rest = '', tonumber(now)
for _ = 1, 6 do
  now_bits, rest = string.char(rest % 256) .. now_bits, math.floor(rest / 256)
end

-- Sets the bits of messages that follow each other.
local function mark(map, from, count)
  if count == 1 then
    call('SETBIT', map, from, 1)
    return
  end
  for bit = from, from + count - 1, MOST_BITS do
    local width = math.min(MOST_BITS, from + count - bit)
    call('BITFIELD', map, 'SET', 'u' .. width, bit, 2 ^ width - 1)
  end
end

local seq = tonumber(call('GET', KEY.seq) or 0)
local answers, position = {}, 1
while position < #ARGV do
  -- Messages that follow each other in one segment, of one queue and actor: their indexes are stored at once.
  local queue, actor, ids, count = ARGV[position + 2], ARGV[position + 4], {}, 0
  local segment, first = math.floor(seq / SEGMENT), seq % SEGMENT
  repeat
    local id, payload, lane = ARGV[position], ARGV[position + 1], ARGV[position + 3]
    local record = seq .. '\tqueued\t1\t0\t0\t0\t' .. now .. '\t0\t' .. lane .. '\t' .. queue .. '\t' .. actor .. '\t\n'
      .. payload .. '\n'
    if call('SET', KEY.record(id), record, 'NX') then
      call('XADD', KEY.stream(queue, lane), '*', 'i', id, 'f', 1)
      seq, count = seq + 1, count + 1
      ids[count] = id
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = 0
    end
    position = position + 5
  until ARGV[position + 2] ~= queue or ARGV[position + 4] ~= actor or count > 0 and seq % SEGMENT == 0
  if count > 0 then
    local of_actor, of_queue = 'actor:' .. actor, 'queue:' .. queue
    call('INCRBY', KEY.seq, count)
    call('RPUSH', KEY.map(segment, 'ids'), unpack(ids))
    mark(KEY.map(segment, of_actor), first, count)
    mark(KEY.map(segment, of_queue), first, count)
    mark(KEY.map(segment, 'state:queued'), first, count)
    call('SADD', KEY.names, of_actor, of_queue, 'state:queued')
    call('HINCRBY', KEY.states, 'queued', count)
    call('HINCRBY', KEY.depths, queue .. '\tqueued', count)
    call('HINCRBY', KEY.kept, segment, count)
    call('HSET', KEY.changed, segment, now)
    if first == 0 then
      call('ZADD', KEY.segments, now, segment)
      call('SET', KEY.times(segment), string.rep('\0', SEGMENT * 6))
    end
    call('SETRANGE', KEY.times(segment), first * 6, string.rep(now_bits, count))
  end
end
return answers
