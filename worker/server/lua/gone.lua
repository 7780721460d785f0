-- include: lost
-- Looks for what a server has evicted, or somebody has deleted, and makes good what can be. Messages without their records
-- are taken out of the indexes and the counts. Messages that wait or run get their lost entries again, delayed ones their
-- times. Lists of queues and segments, the next number and wrong counts are made right.
-- Arguments: the segment and the place in it from which to look, how many messages to look at, how often a message may take
-- its worker down, retention in seconds of the hour windows; then the queues that the process reads.
-- Answer: the segment and the place from which to go on (0 and 0: from the first), how many messages are gone, their ids,
-- then ids of messages that got back what they had lost.
-- Keys: depths, due, failures, kept, map, names, queues, record, scratch, segments, states.
local segment_from, place_from, most, most_starts, retention = number(), number(), number(), number(), number()
local gone, mended = {}, {}
local OPEN = { 'queued', 'delayed', 'running' }
-- The most entries of a queue that are read to find those that are missing: with more, it is looked at when there are fewer.
local MOST_ENTRIES = 10000

for i = position + 1, #ARGV do
  call('SADD', KEY.queues, ARGV[i])
end

for _, segment in ipairs(call('HKEYS', KEY.kept)) do
  call('ZADD', KEY.segments, 'NX', now, segment)
end
next_seq()
local segments = {}
for _, one in ipairs(call('ZRANGE', KEY.segments, 0, -1)) do
  table.insert(segments, tonumber(one))
end
table.sort(segments)

-- The entries of the queues that have fewer than messages that wait or run: of each queue a set of ids with fences.
local entries_of = {}
for _, queue in ipairs(call('SMEMBERS', KEY.queues)) do
  local depths, size = call('HMGET', KEY.depths, queue .. '\tqueued', queue .. '\trunning'), 0
  for _, stream in ipairs(streams_of(queue)) do
    size = size + call('XLEN', stream)
  end
  if size < (tonumber(depths[1] or 0)) + (tonumber(depths[2] or 0)) and size <= MOST_ENTRIES then
    entries_of[queue] = {}
    for _, stream in ipairs(streams_of(queue)) do
      for _, entry in ipairs(call('XRANGE', stream, '-', '+')) do
        local fields = entry[2]
        if fields[1] == 'i' then
          entries_of[queue][fields[2] .. ' ' .. (fields[4] or '')] = true
        end
      end
    end
  end
end

-- The rest of a name whose bit is set for a message, such as its queue.
local function value_of(segment, place, kind)
  for _, name in ipairs(call('SMEMBERS', KEY.names)) do
    if string.sub(name, 1, #kind) == kind and call('GETBIT', KEY.map(segment, name), place) == 1 then
      call('SETBIT', KEY.map(segment, name), place, 0)
      return string.sub(name, #kind + 1)
    end
  end
  return ''
end

local function drop(segment, place, state, id)
  call('SETBIT', KEY.map(segment, 'state:' .. state), place, 0)
  value_of(segment, place, 'actor:')
  count_in(value_of(segment, place, 'queue:'), state, -1)
  call('HINCRBY', KEY.kept, segment, -1)
  if call('EXISTS', KEY.record(id)) == 0 then
    call('ZREM', KEY.due, id)
  end
  call('ZREM', KEY.failures, segment * SEGMENT + place)
  table.insert(gone, id)
end

-- Gives a message its entry again, unless another broker carries it: then it has no payload.
local function restore_entry(id)
  local record = load(id)
  local entries = record and entries_of[record.queue]
  if not entries or entries[id .. ' ' .. record.fence] or split(record) == '' then
    return
  end
  if record.state == 'running' then
    give_to_others(id, record, '?:0', 'lost', 'the server lost what its worker held', record.starts >= most_starts)
  else
    transition(id, record, 'queued', { at = record.at, priority = 'back' })
    save(id, record)
  end
  table.insert(mended, id)
end

local function restore(id, state, at)
  if state == 'delayed' then
    if call('ZADD', KEY.due, 'NX', at, id) == 1 then
      table.insert(mended, id)
    end
  elseif next(entries_of) then
    restore_entry(id)
  end
end

-- Looks at the messages of a state in a segment; answers the place from which to go on, or nil when that was all.
local function look_at(segment, state, place)
  local map = KEY.map(segment, 'state:' .. state)
  while most > 0 do
    place = call('BITPOS', map, 1, place, -1, 'BIT')
    if place < 0 then
      return nil
    end
    most = most - 1
    local id = call('LINDEX', KEY.map(segment, 'ids'), place)
    if id then
      local seq, is, at = decode_begin(call('GETRANGE', KEY.record(id), 0, LONGEST_HEAD_BEGIN))
      if seq ~= segment * SEGMENT + place then
        drop(segment, place, state, id)
      elseif is == state then
        restore(id, state, at)
      end
    end
    place = place + 1
  end
  return place
end

-- How many messages the maps have of a state, and of a queue in it if there is one.
local function mapped(state, queue)
  local found = 0
  for _, segment in ipairs(segments) do
    local map = KEY.map(segment, 'state:' .. state)
    if queue then
      call('BITOP', 'AND', KEY.scratch(1), map, KEY.map(segment, 'queue:' .. queue))
      map = KEY.scratch(1)
    end
    found = found + call('BITCOUNT', map)
  end
  return found
end

local function are_counts_right()
  local depths, counted = call('HGETALL', KEY.depths), {}
  for i = 1, #depths, 2 do
    local state = string.match(depths[i], '\t(%a+)$')
    counted[state] = (counted[state] or 0) + tonumber(depths[i + 1])
  end
  for _, state in ipairs(OPEN) do
    local right = mapped(state)
    if tonumber(call('HGET', KEY.states, state) or 0) ~= right or (counted[state] or 0) ~= right then
      return false
    end
  end
  return true
end

local function count_anew()
  for _, state in ipairs(STATES) do
    call('HSET', KEY.states, state, mapped(state))
  end
  for _, name in ipairs(call('SMEMBERS', KEY.names)) do
    local queue = string.match(name, '^queue:(.*)')
    for _, state in ipairs(queue and OPEN or {}) do
      call('HSET', KEY.depths, queue .. '\t' .. state, mapped(state, queue))
    end
  end
  call('DEL', KEY.scratch(1))
end

-- Adds the messages of a segment that have failed, each with since when it is in its state.
local function add_failures_of(segment, failures)
  local map, place = KEY.scratch(1), -1
  call('BITOP', 'OR', map, KEY.map(segment, 'state:dead'), KEY.map(segment, 'ended:failed'), KEY.map(segment, 'ended:lost'))
  while true do
    place = call('BITPOS', map, 1, place + 1, -1, 'BIT')
    local id = place >= 0 and call('LINDEX', KEY.map(segment, 'ids'), place)
    if not id then
      return
    end
    local seq, _, at = decode_begin(call('GETRANGE', KEY.record(id), 0, LONGEST_HEAD_BEGIN))
    if seq then
      table.insert(failures, { seq = seq, at = at })
    end
  end
end

-- What failed last is not known any more: the order is that in which the messages came into their states.
local function number_failures_anew()
  local failures = {}
  for _, segment in ipairs(segments) do
    add_failures_of(segment, failures)
  end
  table.sort(failures, function(a, b) return a.at < b.at end)
  call('DEL', KEY.failures, KEY.scratch(1))
  for place, one in ipairs(failures) do
    call('ZADD', KEY.failures, place, one.seq)
  end
end

if segment_from == 0 and place_from == 0 then
  if not are_counts_right() then
    count_anew()
  end
  if call('ZCOUNT', KEY.failures, '-inf', '+inf') < tonumber(call('HGET', KEY.states, 'dead') or 0) then
    number_failures_anew()
  end
end
local answer = { 0, 0 }
for _, segment in ipairs(segments) do
  if segment >= segment_from then
    local from = segment == segment_from and place_from or 0
    local rest
    for _, state in ipairs(OPEN) do
      local place = look_at(segment, state, from)
      rest = place and math.min(rest or place, place) or rest
    end
    if rest then
      answer = { segment, rest }
      break
    end
  end
end
finish(retention)
table.insert(answer, #gone)
for _, found in ipairs({ gone, mended }) do
  for _, id in ipairs(found) do
    table.insert(answer, id)
  end
end
return answer
