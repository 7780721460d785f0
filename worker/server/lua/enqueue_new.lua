-- include: runners, record, subjects, segments
-- Stores new messages that are neither delayed nor unique, and enqueues them: what `enqueue` does in the usual case, in
-- a fraction of its time, for it changes the indexes by itself.
-- Arguments: for each its id, payload, queue, priority, actor, subjects; some hundreds of messages at most.
-- Answer: for each 1, or 0 if nothing was done, since there is a record of that id: `enqueue` knows what to do then.
-- Keys: changed, depths, kept, map, names, record, segments, seq, states, stream, times.
local MOST_BITS = 32

-- Sets the bits of messages that follow each other.
local function mark_all(map, from, count)
  if count == 1 then
    call('SETBIT', map, from, 1)
    return
  end
  for bit_from = from, from + count - 1, MOST_BITS do
    local width = math.min(MOST_BITS, from + count - bit_from)
    call('BITFIELD', map, 'SET', 'u' .. width, bit_from, 2 ^ width - 1)
  end
end

local seq = next_seq()
local answers, records = {}, KEY.record('')
while position < #ARGV do
  -- Messages that follow each other in one segment, of one queue and actor: their indexes are stored at once.
  local queue, actor, ids, count = ARGV[position + 3], ARGV[position + 5], {}, 0
  local segment, first, runner = segment_of(seq), seq % SEGMENT, runner_of(actor)
  local last_priority, stream, head
  repeat
    local id, payload, priority = ARGV[position + 1], ARGV[position + 2], ARGV[position + 4]
    if priority ~= last_priority then
      last_priority, stream, head = priority, KEY.stream(queue, priority, runner), encode_new(now_text, priority, queue, actor)
    end
    local subjects = read_subjects(ARGV[position + 6])
    if call('SET', records .. id, seq .. head .. subjects .. '\n' .. payload .. '\n', 'NX') then
      if subjects ~= '' then
        index_subjects(id, seq, subjects)
      end
      call('XADD', stream, '*', 'i', id, 'f', 1)
      seq, count = seq + 1, count + 1
      ids[count] = id
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = 0
    end
    position = position + 6
  until ARGV[position + 3] ~= queue or ARGV[position + 5] ~= actor or count > 0 and seq % SEGMENT == 0
  if count > 0 then
    local of_actor, of_queue = 'actor:' .. actor, 'queue:' .. queue
    call('INCRBY', KEY.seq, count)
    call('RPUSH', KEY.map(segment, 'ids'), unpack(ids))
    mark_all(KEY.map(segment, of_actor), first, count)
    mark_all(KEY.map(segment, of_queue), first, count)
    mark_all(KEY.map(segment, 'state:queued'), first, count)
    call('SADD', KEY.names, of_actor, of_queue, 'state:queued')
    call('HINCRBY', KEY.states, 'queued', count)
    call('HINCRBY', KEY.depths, queue .. '\tqueued', count)
    call('HINCRBY', KEY.kept, segment, count)
    call('HSET', KEY.changed, segment, now_text)
    if first == 0 then
      call('ZADD', KEY.segments, now_text, segment)
      call('SET', KEY.times(segment), string.rep('\0', SEGMENT * 6))
    end
    call('SETRANGE', KEY.times(segment), first * 6, string.rep(as_bits(now), count))
  end
end
return answers
