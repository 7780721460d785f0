-- How a record is written: a line of fields, the message, and a line for each event. worker/history/record.py reads it.
-- After the twelve fields there may be more, each `name=value`: a reader passes over what it does not know, and a script
-- keeps it.
local HEAD = '^(%d+)\t(%a+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%a+)\t([^\t\n]*)\t([^\t\n]*)\t([^\t\n]*)([^\n]*)\n()'
local NUMBERS = '%d\t%s\t%d\t%d\t%d\t%d\t%s\t%d\t'
local HEAD_WAITING = '^%d+\t%a+\t(%d+)\t(%d+)\t%d+\t(%d+)\t(%d+)\t%d+\t%a+\t[^\t\n]*\t([^\t\n]*)\t[^\n]*\n()'
local HEAD_BEGIN = '^(%d+)\t(%a+)\t%d+\t%d+\t%d+\t%d+\t(%d+)\t'
local LONGEST_HEAD_BEGIN = 150

-- A record that is stored: `was`, `was_at`, and `was_in` where the queue has changed, are what the indexes say of it. nil: it
-- cannot be read. It has no more than sixteen fields: the seventeenth would double a table's size.
local function decode_record(text)
  local seq, state, fence, attempts, starts, losses, at, cut, priority, queue, actor, subjects, more, body =
    string.match(text, HEAD)
  if not seq or not string.find(text, '\n', body, true) then
    return nil
  end
  return {
    seq = tonumber(seq), state = state, was = state, fence = tonumber(fence), attempts = tonumber(attempts),
    starts = tonumber(starts), losses = tonumber(losses), at = at, was_at = at, cut = tonumber(cut),
    priority = priority, queue = queue, actor = actor, subjects = subjects, more = more,
    body = string.sub(text, body),
  }
end

local function encode_record(record)
  local numbers = string.format(NUMBERS, record.seq, record.state, record.fence, record.attempts, record.starts,
    record.losses, record.at, record.cut)
  return numbers .. record.priority .. '\t' .. record.queue .. '\t' .. record.actor .. '\t' .. record.subjects
    .. record.more .. '\n' .. record.body
end

-- What `encode_record` writes of a new message that waits, between its number and its subjects.
local function encode_new(at, priority, queue, actor)
  return '\tqueued\t1\t0\t0\t0\t' .. at .. '\t0\t' .. priority .. '\t' .. queue .. '\t' .. actor .. '\t'
end

-- What a process that takes a message is told of it, and the actor: fence, attempts, losses, since when it waits, payload,
-- actor. nil: it cannot be read. It costs half of what `decode_record` does.
local function decode_waiting(text)
  local fence, attempts, losses, at, actor, body = string.match(text, HEAD_WAITING)
  local line_end = body and string.find(text, '\n', body, true)
  if line_end then
    return tonumber(fence), tonumber(attempts), tonumber(losses), at, string.sub(text, body, line_end - 1), actor
  end
  return nil
end

-- The number, the state and since when, of what a record begins with.
local function decode_begin(text)
  local seq, state, at = string.match(text, HEAD_BEGIN)
  return tonumber(seq), state, tonumber(at)
end

-- A message that has no number and no state yet.
local function new_record(queue, priority, actor, payload, subjects)
  return {
    fence = 0, attempts = 0, starts = 0, losses = 0, cut = 0, priority = priority, queue = queue, actor = actor,
    subjects = subjects, more = '', body = payload .. '\n',
  }
end

-- A field beyond the twelve, or nil.
local function more_field(record, name)
  return record.more ~= '' and string.match(record.more, '\t' .. name .. '=([^\t]*)') or nil
end

-- Sets such a field; nil removes it.
local function set_more(record, name, value)
  if value or record.more ~= '' then
    local others = string.gsub(record.more, '\t' .. name .. '=[^\t]*', '')
    record.more = others .. (value and '\t' .. name .. '=' .. value or '')
  end
end

-- The message, and where its events begin.
local function split(record)
  local line_end = string.find(record.body, '\n', 1, true)
  return string.sub(record.body, 1, line_end - 1), line_end + 1
end

local function events_of(record)
  local _, first = split(record)
  return string.sub(record.body, first)
end

local function replace_payload(record, payload)
  local _, first = split(record)
  record.body = payload .. '\n' .. string.sub(record.body, first)
end

-- Drops the arguments of a message that has ended; when it was sent is kept.
local function strip(record)
  local payload = split(record)
  local at = string.match(string.sub(payload, -60), '"message_timestamp":(%d+)}$')
  replace_payload(record, payload == '' and '' or '{' .. (at and '"message_timestamp":' .. at or '') .. '}')
  set_more(record, 'bare', '1')
end

-- Drops the oldest events so that so many bytes are left; how many were dropped is kept.
local function shorten(record, bytes)
  local payload, first = split(record)
  local from = string.find(record.body, '\n', #record.body - bytes, true) + 1
  if from > first and from <= #record.body then
    local _, lines = string.gsub(string.sub(record.body, first, from - 1), '\n', '')
    record.cut = record.cut + lines
    record.body = payload .. '\n' .. string.sub(record.body, from)
  end
end
