-- include: server, keys, states, segments
-- The indexes of messages: the changes of a script are gathered here, and `store_indexes` stores them.
-- Keys: changed, depths, ended, kept, map, names, segments, seq, states, times.
local changes, marks, ended_in, changed_in = {}, {}, {}, {}

local function add_to(key, field, amount)
  local fields = changes[key]
  if not fields then
    fields = {}
    changes[key] = fields
  end
  fields[field] = (fields[field] or 0) + amount
end

-- Sets or clears a message's bit in the map of a name.
local maps = {}
local function mark(seq, name, value)
  local segment = segment_of(seq)
  local segments = maps[name]
  if not segments then
    segments = {}
    maps[name] = segments
  end
  local changed = segments[segment]
  if not changed then
    changed = {}
    segments[segment] = changed
    marks[KEY.map(segment, name)] = changed
  end
  local size = #changed
  changed[size + 1], changed[size + 2], changed[size + 3], changed[size + 4] = 'SET', 'u1', seq % SEGMENT, value
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
  local key = KEY.times(segment_of(seq))
  local times = marks[key] or {}
  marks[key] = times
  local size = #times
  times[size + 1], times[size + 2], times[size + 3], times[size + 4] = 'SET', 'u48', '#' .. seq % SEGMENT, at
end

local function count_in(queue, state, amount)
  add_to(KEY.states, state, amount)
  if not FINAL[state] then
    add_to(KEY.depths, queue .. '\t' .. state, amount)
  end
end

-- Brings the indexes in line with a record that is stored with another state or time than they have.
local function index_state(record)
  local segment = segment_of(record.seq)
  if record.state ~= record.was or record.at ~= record.was_at then
    changed_in[segment] = true
    store_time(record.seq, record.at)
    record.was_at = record.at
  end
  if record.state ~= record.was then
    if record.was then
      mark(record.seq, 'state:' .. record.was, 0)
      count_in(record.was_in, record.was, -1)
    end
    mark_as(record.seq, 'state:' .. record.state)
    count_in(record.queue, record.state, 1)
    if FINAL[record.state] then
      local key = KEY.ended(record.state)
      ended_in[key] = ended_in[key] or {}
      ended_in[key][segment] = true
    end
    record.was, record.was_in = record.state, record.queue
  elseif record.queue ~= record.was_in then
    -- It has ended, and its own attempt has enqueued it into another queue.
    count_in(record.was_in, record.state, -1)
    count_in(record.queue, record.state, 1)
    record.was_in = record.queue
  end
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

-- The segments in which messages ended, each with a time before which none of them did.
local function store_ended()
  for key, segments in pairs(ended_in) do
    for segment in pairs(segments) do
      call('ZADD', key, 'NX', now, segment)
    end
  end
  ended_in = {}
end

local function store_marks()
  for map, bits in pairs(marks) do
    for from = 1, #bits, 2000 do
      call('BITFIELD', map, unpack(bits, from, math.min(from + 1999, #bits)))
    end
  end
  maps, marks = {}, {}
end

local function store_indexes()
  store_marks()
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
