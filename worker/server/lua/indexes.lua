-- include: server, keys, states, segments
-- The indexes of messages: the changes of a script are gathered here, and `store_indexes` stores them.
-- Keys: arguments, changed, depths, ended, failures, kept, map, names, segments, seq, states, times.
local changes, marks, moments, ended_in, changed_in = {}, {}, {}, {}, {}

local function add_to(key, field, amount)
  local fields = changes[key]
  if not fields then
    fields = {}
    changes[key] = fields
  end
  fields[field] = (fields[field] or 0) + amount
end

-- Values of messages, gathered as runs of messages that follow each other and have the same: of each run the first number,
-- how many, and the value. Most are runs, and a run is stored as fast as one.
local function add_to_runs(runs, seq, value)
  local size = #runs
  if size > 0 and runs[size] == value and runs[size - 2] + runs[size - 1] == seq and seq % SEGMENT ~= 0 then
    runs[size - 1] = runs[size - 1] + 1
  else
    runs[size + 1], runs[size + 2], runs[size + 3] = seq, 1, value
  end
end

-- Sets or clears a message's bit in the map of a name.
local function mark(seq, name, value)
  local runs = marks[name]
  if not runs then
    runs = {}
    marks[name] = runs
  end
  add_to_runs(runs, seq, value)
end

-- A name is remembered, so that it can be listed and its bits be dropped with the segment.
local known = {}
local function mark_as(seq, name)
  if not known[name] then
    known[name] = true
    call('SADD', KEY.names, name)
  end
  mark(seq, name, 1)
end

local function begin_segment(segment)
  if call('ZADD', KEY.segments, 'NX', now, segment) == 1 then
    -- 48 bits a message. As long as it will be: what grows takes twice the room.
    call('SET', KEY.times(segment), string.rep('\0', SEGMENT * 6))
  end
end

-- Since when a message is in its state.
local function store_time(seq, at)
  add_to_runs(moments, seq, at)
end

local function count_in(queue, state, amount)
  add_to(KEY.states, state, amount)
  if not FINAL[state] then
    add_to(KEY.depths, queue .. '\t' .. state, amount)
  end
end

local function remember_end(key, segment)
  ended_in[key] = ended_in[key] or {}
  ended_in[key][segment] = true
end

-- Brings the indexes in line with a record that is stored with another state or time than they have.
local function index_state(record)
  local segment, was_in = segment_of(record.seq), record.was_in or record.queue
  if record.state ~= record.was or record.at ~= record.was_at then
    changed_in[segment] = true
    store_time(record.seq, record.at)
    record.was_at = record.at
  end
  if record.state ~= record.was then
    if record.was then
      mark(record.seq, 'state:' .. record.was, 0)
      count_in(was_in, record.was, -1)
    end
    mark_as(record.seq, 'state:' .. record.state)
    count_in(record.queue, record.state, 1)
    if FINAL[record.state] then
      remember_end(KEY.ended(record.state), segment)
      if record.state ~= 'dead' then
        remember_end(KEY.arguments, segment)
      end
    end
    record.was = record.state
  elseif record.queue ~= was_in then
    -- It has ended, and its own attempt has enqueued it into another queue.
    count_in(was_in, record.state, -1)
    count_in(record.queue, record.state, 1)
  end
  record.was_in = nil
end

-- Gives new messages their numbers, in order.
local function index_new(ids, records)
  local first = next_seq()
  call('INCRBY', KEY.seq, #ids)
  local by_segment = {}
  for i, id in ipairs(ids) do
    local seq = first + i - 1
    local segment, record = segment_of(seq), records[i]
    record.seq = seq
    if not by_segment[segment] then
      by_segment[segment] = {}
      begin_segment(segment)
    end
    table.insert(by_segment[segment], id)
    mark_as(seq, 'actor:' .. record.actor)
    mark_as(seq, 'queue:' .. record.queue)
  end
  for segment, members in pairs(by_segment) do
    call('HINCRBY', KEY.kept, segment, #members)
    for from = 1, #members, 1000 do
      call('RPUSH', KEY.map(segment, 'ids'), unpack(members, from, math.min(from + 999, #members)))
    end
  end
end

-- Messages that have failed, each by the number of its last failure.
local failed = {}
local function add_failure(seq)
  table.insert(failed, seq)
end

local function store_failures()
  local last = #failed > 0 and call('ZRANGE', KEY.failures, -1, -1, 'WITHSCORES')[2] or 0
  for i, seq in ipairs(failed) do
    call('ZADD', KEY.failures, last + i, seq)
  end
  failed = {}
end

-- The segments in which messages ended, each with a time before which none of them did.
local function store_ended()
  for key, segments in pairs(ended_in) do
    for segment in pairs(segments) do
      call('ZADD', key, 'NX', now, segment)
    end
  end
  ended_in = {}
end

-- The bits of a run in a map, as BITFIELD is told.
local MOST_BITS, MOST_WORDS = 32, 2000
local function add_bits(words, first, count, value)
  for from = first, first + count - 1, MOST_BITS do
    local width = math.min(MOST_BITS, first + count - from)
    local size = #words
    words[size + 1], words[size + 2], words[size + 3], words[size + 4] =
      'SET', 'u' .. width, from, value == 1 and 2 ^ width - 1 or 0
  end
end

local function store_bits(name, runs)
  local maps = {}
  for i = 1, #runs, 3 do
    local map = KEY.map(segment_of(runs[i]), name)
    maps[map] = maps[map] or {}
    add_bits(maps[map], runs[i] % SEGMENT, runs[i + 1], runs[i + 2])
  end
  for map, words in pairs(maps) do
    for from = 1, #words, MOST_WORDS do
      call('BITFIELD', map, unpack(words, from, math.min(from + MOST_WORDS - 1, #words)))
    end
  end
end

local function store_marks()
  for name, runs in pairs(marks) do
    store_bits(name, runs)
  end
  for i = 1, #moments, 3 do
    local seq, count, at = moments[i], moments[i + 1], moments[i + 2]
    call('SETRANGE', KEY.times(segment_of(seq)), seq % SEGMENT * 6, string.rep(as_bits(at), count))
  end
  marks, moments = {}, {}
end

local function store_indexes()
  store_marks()
  store_failures()
  for key, fields in pairs(changes) do
    for field, amount in pairs(fields) do
      call('HINCRBY', key, field, amount)
    end
  end
  store_ended()
  for segment in pairs(changed_in) do
    call('HSET', KEY.changed, segment, now_text)
  end
end
