-- include: server, keys, record, subjects, lines, indexes, counting, tail
-- Records of messages, as they are read and stored.
-- Keys: bytes, record, subject.
local MAX_EVENTS_BYTES = 65536
-- What a message takes beside its record, about: its key, and its place in the indexes.
local BYTES_AROUND = 200

-- `size`: of a record whose message has ended, the bytes that are counted of it. Only those have it: a field more would
-- double the table of each message that is taken or ends.
local function load(id)
  local text = call('GET', KEY.record(id))
  local record = text and decode_record(text)
  if record and FINAL[record.state] then
    record.size = #text + BYTES_AROUND
  end
  return record
end

-- A record is saved once after it was loaded, and forgotten instead.
local function save(id, record)
  if #record.body > MAX_EVENTS_BYTES then
    shorten(record, MAX_EVENTS_BYTES)
  end
  local text = encode_record(record)
  call('SET', KEY.record(id), text)
  if record.size then
    add_to(KEY.bytes, record.was, -record.size)
  end
  if FINAL[record.state] then
    add_to(KEY.bytes, record.state, #text + BYTES_AROUND)
  end
  index_state(record)
end

-- Events go to their record and to the tail. `lines` ends with a newline, or is empty.
local function append(id, record, lines)
  if lines ~= '' then
    record.body = record.body .. lines
    add_to_tail(id, record, lines)
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

-- How an attempt of a message ended, and the type of its error, or empty.
local function mark_end(record, kind, error_type)
  if MARKED_ENDS[kind] then
    mark_as(record.seq, 'ended:' .. kind)
  end
  if FAILURES[kind] then
    add_failure(record.seq)
  end
  if error_type ~= '' then
    for one in types_in(error_type) do
      mark_as(record.seq, 'error:' .. one)
    end
  end
end

-- Ends every script that changes something; `retention`: seconds, 0: as it is.
local function finish(retention)
  store_indexes()
  store_counters(retention)
  store_tail(retention)
end
