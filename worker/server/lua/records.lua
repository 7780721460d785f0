-- include: keys
-- Records of messages, their indexes and counters. Formats: docs/reference/redis.md.
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_text = string.format('%.0f', now)

local SEGMENT = 4096
local MAX_EVENTS_BYTES = 65536
local TAIL_BYTES = 16777216
local TAIL_ENTRIES = 1000
local TAIL_MESSAGES = 32
local MINUTE, TEN_MINUTES, HOUR, DAY = 60000, 600000, 3600000, 86400000
local WINDOWS = { [MINUTE] = 'w', [TEN_MINUTES] = 'w10', [HOUR] = 'h', [DAY] = 'd' }
local MINUTES_KEPT = 93600
local LANES = { 'back', 'high', 'normal', 'low' }
local FINAL = { completed = true, skipped = true, dead = true, cancelled = true }

-- Arguments are read one after the other.
local position = 0
local function argument()
  position = position + 1
  return ARGV[position]
end
local function number()
  return tonumber(argument())
end

local function read_limits()
  local limits = {}
  for _, state in ipairs({ 'completed', 'skipped', 'cancelled', 'dead' }) do
    limits[state] = { age = number(), most = number() }
  end
  return limits
end

-- What is added up while the script runs, and stored once at its end.
local changes, counters, tail, marks, ended_in, changed_in = {}, {}, {}, {}, {}, {}
local function add(key, field, amount)
  local fields = changes[key]
  if not fields then
    fields = {}
    changes[key] = fields
  end
  fields[field] = (fields[field] or 0) + amount
end

local function segment_of(seq)
  return math.floor(seq / SEGMENT)
end

-- Sets or clears a message's bit in the map of a name.
local maps = {}
local function mark(seq, name, bit)
  local segment = segment_of(seq)
  local names = maps[name]
  if not names then
    names = {}
    maps[name] = names
  end
  local list = names[segment]
  if not list then
    list = {}
    names[segment] = list
    marks[KEY.map(segment, name)] = list
  end
  local size = #list
  list[size + 1], list[size + 2], list[size + 3], list[size + 4] = 'SET', 'u1', seq % SEGMENT, bit
end

local function begin_segment(segment)
  if call('ZADD', KEY.segments, 'NX', now, segment) == 1 then
    -- 48 bits a message. As long as it will be: what grows takes twice the room.
    call('SET', KEY.times(segment), string.rep('\0', SEGMENT * 6))
  end
end

local function note_time(seq, at)
  local key = KEY.times(segment_of(seq))
  local list = marks[key] or {}
  marks[key] = list
  local size = #list
  list[size + 1], list[size + 2], list[size + 3], list[size + 4] = 'SET', 'u48', '#' .. seq % SEGMENT, at
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
  for map, list in pairs(marks) do
    for from = 1, #list, 2000 do
      call('BITFIELD', map, unpack(list, from, math.min(from + 1999, #list)))
    end
  end
  maps, marks = {}, {}
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

-- A record: a line of fields, then the message, then a line for each event.
local PATTERN = '^(%d+)\t(%a+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%a+)\t([^\t]*)\t([^\t]*)\t([^\n]*)\n()'
local function load(id)
  local text = call('GET', KEY.record(id))
  if not text then
    return nil
  end
  local seq, state, fence, attempts, starts, losses, at, cut, lane, queue, actor, subjects, body =
    string.match(text, PATTERN)
  if not seq or not string.find(text, '\n', body, true) then
    return nil
  end
  return {
    seq = tonumber(seq), state = state, was = state, fence = tonumber(fence), attempts = tonumber(attempts),
    starts = tonumber(starts), losses = tonumber(losses), at = at, was_at = at, cut = cut,
    lane = lane, queue = queue, was_in = queue, actor = actor, subjects = subjects, body = string.sub(text, body),
  }
end

-- The message, and where its events begin.
local function split(record)
  local line_end = string.find(record.body, '\n', 1, true)
  return string.sub(record.body, 1, line_end - 1), line_end + 1
end

local function replace_payload(record, payload)
  local _, first = split(record)
  record.body = payload .. '\n' .. string.sub(record.body, first)
end

local function shorten(record)
  -- The oldest events go; how many is kept.
  local payload, first = split(record)
  local from = string.find(record.body, '\n', #record.body - MAX_EVENTS_BYTES, true) + 1
  if from > first and from <= #record.body then
    local _, lines = string.gsub(string.sub(record.body, first, from - 1), '\n', '')
    record.cut = record.cut + lines
    record.body = payload .. '\n' .. string.sub(record.body, from)
  end
end

local function count_in(queue, state, amount)
  add(KEY.states, state, amount)
  if not FINAL[state] then
    add(KEY.depths, queue .. '\t' .. state, amount)
  end
end

local function save(id, record)
  if #record.body > MAX_EVENTS_BYTES then
    shorten(record)
  end
  call('SET', KEY.record(id), record.seq .. '\t' .. record.state .. '\t' .. record.fence .. '\t' .. record.attempts
    .. '\t' .. record.starts .. '\t' .. record.losses .. '\t' .. record.at .. '\t' .. record.cut .. '\t' .. record.lane
    .. '\t' .. record.queue .. '\t' .. record.actor .. '\t' .. record.subjects .. '\n' .. record.body)
  local segment = segment_of(record.seq)
  if record.state ~= record.was or record.at ~= record.was_at then
    changed_in[segment] = true
    note_time(record.seq, record.at)
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
  end
end

-- `later`: in ms; negative: not delayed.
local function new_record(later, queue, lane, actor, payload)
  return {
    state = later < 0 and 'queued' or 'delayed', at = later <= 0 and now_text or now + later,
    fence = 1, attempts = 0, starts = 0, losses = 0, cut = 0,
    lane = lane, queue = queue, actor = actor, subjects = '', body = payload .. '\n',
  }
end

-- Events are appended to their record and to the tail. `lines` ends with a newline, or is empty.
local function append(id, record, lines)
  if lines ~= '' then
    record.body = record.body .. lines
    tail[#tail + 1] = id .. '\t' .. record.actor .. '\t' .. record.queue .. '\n' .. lines
  end
end

-- What a message is about, as `name=value`.
local function add_subject(id, record, subject)
  local mine = '\31' .. subject .. '\31'
  if not string.find(record.subjects, mine, 1, true) then
    record.subjects = (record.subjects == '' and '\31' or record.subjects) .. subject .. '\31'
    call('ZADD', KEY.subject(subject), record.seq, id)
  end
end

local function set_state(record, state)
  record.state = state
  record.at = now_text
end

-- An entry is good for one delivery: that of its fence.
local function enqueue(id, record, lane)
  call('XADD', KEY.stream(record.queue, lane or record.lane), '*', 'i', id, 'f', record.fence)
end
local function is_current(fields, record)
  return fields[3] ~= 'f' or tonumber(fields[4]) == record.fence
end

local function delay(id, due)
  call('ZADD', KEY.due, due, id)
  if call('ZRANGE', KEY.due, 0, 0)[1] == id then
    call('XADD', KEY.wake, 'MAXLEN', 1, '*', 'due', due)
  end
end

-- Gives new messages their numbers, in order, and enqueues those that are to wait.
local function create(ids, records)
  local last = call('INCRBY', KEY.seq, #ids)
  local by_segment = {}
  for i, id in ipairs(ids) do
    local seq = last - #ids + i - 1
    local segment = segment_of(seq)
    local record = records[i]
    record.seq = seq
    if not by_segment[segment] then
      by_segment[segment] = {}
      begin_segment(segment)
    end
    table.insert(by_segment[segment], id)
    mark_as(seq, 'actor:' .. record.actor)
    mark_as(seq, 'queue:' .. record.queue)
    save(id, record)
  end
  for segment, members in pairs(by_segment) do
    call('HINCRBY', KEY.kept, segment, #members)
    for from = 1, #members, 1000 do
      call('RPUSH', KEY.map(segment, 'ids'), unpack(members, from, math.min(from + 999, #members)))
    end
  end
  for i, id in ipairs(ids) do
    if records[i].state == 'queued' then
      enqueue(id, records[i])
    elseif records[i].state == 'delayed' then
      delay(id, records[i].at)
    end
  end
end

-- Puts a message that is taken back into its queue, or among the delayed; whoever had it is fenced off.
local function put_again(id, record, due, lane)
  record.fence = record.fence + 1
  if due then
    set_state(record, 'delayed')
    record.at = due
    delay(id, due)
  else
    set_state(record, 'queued')
    enqueue(id, record, lane)
  end
end

-- The types of the errors that its attempts had.
local function errors_of(record)
  return string.gmatch(record.body, '"r":%["([^"]*)"')
end

-- What a dead letter died of: an error's type, that its workers died, or nobody knows (a middleware refused it).
local function mark_death(seq, cause)
  mark_as(seq, 'died:' .. (cause == '' and 'unknown' or cause))
end
local function unmark_death(record, unmark)
  if record.was ~= 'dead' then
    return
  end
  local causes = { 'lost', 'unknown' }
  for error in errors_of(record) do
    table.insert(causes, error)
  end
  for _, cause in ipairs(causes) do
    -- No map is made of a name that nobody would find again.
    if call('SISMEMBER', KEY.names, 'died:' .. cause) == 1 then
      unmark('died:' .. cause)
    end
  end
end

-- Enqueues a message again that ran to its end before; it may be another's now.
local function enqueue_again(id, record, later, queue, lane, actor, payload)
  mark(record.seq, 'actor:' .. record.actor, 0)
  mark(record.seq, 'queue:' .. record.queue, 0)
  unmark_death(record, function(name) mark(record.seq, name, 0) end)
  call('DEL', KEY.cancel(id))
  mark_as(record.seq, 'actor:' .. actor)
  mark_as(record.seq, 'queue:' .. queue)
  record.queue, record.lane, record.actor = queue, lane, actor
  record.starts, record.losses = 0, 0
  replace_payload(record, payload)
  put_again(id, record, later >= 0 and now + later or nil)
  save(id, record)
end

-- Adds to the counters of an actor and of all: how attempts ended, and histograms of times.
local totals = {}
local function count(actor, what, amount)
  local field = actor .. '\t' .. what
  counters[field] = (counters[field] or 0) + (amount or 1)
  totals[what] = (totals[what] or 0) + (amount or 1)
end

local function store_counters(retention)
  for length, letter in pairs(WINDOWS) do
    local kept = length < HOUR and MINUTES_KEPT or math.max(retention, MINUTES_KEPT)
    for kind, fields in pairs({ [''] = counters, ['t'] = (length == MINUTE or length == HOUR) and totals or nil }) do
      local window = KEY.window(letter .. kind, math.floor(now / length))
      for field, amount in pairs(fields) do
        call('HINCRBY', window, field, amount)
      end
      call('EXPIRE', window, kept)
    end
  end
  for field, amount in pairs(counters) do
    call('HINCRBY', KEY.sums, field, amount)
  end
end

-- As many entries as have about TAIL_BYTES, if all were like the newest.
local function store_tail(retention)
  local longest = 1
  for from = 1, #tail, TAIL_MESSAGES do
    local text = table.concat(tail, '', from, math.min(from + TAIL_MESSAGES - 1, #tail))
    longest = math.max(longest, #text)
    call('XADD', KEY.tail, '*', 'e', text)
  end
  if #tail > 0 then
    call('XTRIM', KEY.tail, 'MAXLEN', '~', math.max(TAIL_ENTRIES, math.floor(TAIL_BYTES / longest)))
    if retention > 0 then
      call('XTRIM', KEY.tail, 'MINID', now - 1000 * retention)
    end
  end
end

local function finish(retention)
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
  if next(counters) then
    store_counters(retention)
  end
  store_tail(retention)
end
