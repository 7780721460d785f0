-- include: records, streams
-- The one place where a message changes its state, with all that belongs to the change.
-- Keys: cancel, due, names, unique, wake.

-- How many messages have ended in this script.
local ended = 0

-- Why a message is a dead letter: an error's type, `lost` (its workers died), or `unknown` (a middleware refused it).
local function mark_cause(record, cause)
  mark_as(record.seq, 'cause:' .. (types_in(cause)() or 'unknown'))
end
local function unmark_cause(record, unmark)
  local causes = { 'lost', 'unknown' }
  for error_type in errors_in(events_of(record)) do
    table.insert(causes, error_type)
  end
  for _, cause in ipairs(causes) do
    -- No map is made of a name that nobody would find again.
    if call('SISMEMBER', KEY.names, 'cause:' .. cause) == 1 then
      unmark('cause:' .. cause)
    end
  end
end

-- Frees the unique key that a message holds.
local function free_unique(id, record)
  if not string.find(record.body, '"unique":', 1, true) then
    return
  end
  local payload = split(record)
  local readable, message = pcall(cjson.decode, payload)
  local unique = readable and type(message) == 'table' and type(message.options) == 'table' and message.options.unique
  if type(unique) == 'string' and call('GET', KEY.unique(unique)) == id then
    call('DEL', KEY.unique(unique))
  end
end

-- What a message is to be enqueued with once more after its end, because its own attempt has enqueued it: the fence of that
-- attempt, when it is due, and what it is.
local NEXT = '^(%d+)\31(%d+)\31(%a+)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31(.*)$'
local function encode_next(fence, due, queue, priority, actor, subjects, payload)
  return table.concat({ fence, due, priority, queue, actor, subjects, payload }, '\31')
end

local function leave(id, record)
  if record.state == 'delayed' then
    call('ZREM', KEY.due, id)
  elseif FINAL[record.state] then
    call('DEL', KEY.cancel(id))
    if record.more ~= '' and more_field(record, 'bare') then
      set_more(record, 'bare', nil)
      mark(record.seq, 'bare', 0)
    end
    if record.state == 'dead' then
      unmark_cause(record, function(name) mark(record.seq, name, 0) end)
    end
  end
end

local function delay(id, due)
  call('ZADD', KEY.due, due, id)
  if call('ZRANGE', KEY.due, 0, 0)[1] == id then
    call('XADD', KEY.wake, 'MAXLEN', 1, '*', 'due', due)
  end
end

-- Whether somebody wants a message to end that runs: then it ends, unless it has ended well.
local function is_cancelled(id, record, state)
  return record.state == 'running' and state ~= 'completed' and state ~= 'skipped' and call('EXISTS', KEY.cancel(id)) == 1
end

-- The priority with which a message waits. One that a process had when it died may have been why: a process begins few
-- of these at once (worker/broker/suspects.py), and of those that were lost more than once, one.
local function priority_of(record, priority)
  if record.losses > 0 then
    return record.losses == 1 and 'lost' or 'suspect'
  end
  return priority or record.priority
end

local begin_again

-- A message that has ended is enqueued if its own attempt has enqueued it; what was cancelled is over.
local function follow_itself(id, record)
  local _, due, priority, queue, actor, subjects, payload = string.match(more_field(record, 'next') or '', NEXT)
  set_more(record, 'next', nil)
  if due and record.state ~= 'cancelled' and call('EXISTS', KEY.cancel(id)) == 0 then
    begin_again(id, record, tonumber(due) > now and due or nil, queue, priority, actor, subjects, payload)
  end
end

-- Brings a message into a state; the caller saves it. `how`, each where it is needed: `at`, since when
-- (else: now); `due`, when a delayed one is due; `priority`, if not the message's own; `cause` of a dead letter;
-- `elsewhere`, that another broker carries it.
local NOTHING_MORE = {}
local function transition(id, record, state, how)
  how = how or NOTHING_MORE
  if not how.elsewhere and is_cancelled(id, record, state) then
    state, how = 'cancelled', NOTHING_MORE
  end
  local was = record.state
  leave(id, record)
  record.state = state
  record.at = how.due or how.at or now_text
  if state == 'dead' then
    mark_cause(record, how.cause)
    add_failure(record.seq)
  end
  if FINAL[state] then
    ended = ended + 1
  end
  if how.elsewhere then
    return
  end
  if state == 'running' then
    record.starts = record.starts + 1
    if record.more ~= '' and more_field(record, 'until') == 'start' then
      free_unique(id, record)
    end
    return
  end
  if was ~= 'delayed' or state ~= 'queued' then
    -- A process that had it, or is given an earlier entry, is fenced.
    record.fence = record.fence + 1
  end
  if state == 'queued' then
    add_entry(id, record.fence, record.queue, priority_of(record, how.priority), record.actor)
  elseif state == 'delayed' then
    delay(id, record.at)
  else
    free_unique(id, record)
    if record.more ~= '' then
      follow_itself(id, record)
    end
  end
end

-- Enqueues new messages; each `later` is in ms, negative: not delayed.
local function enqueue_new(ids, records)
  index_new(ids, records)
  for i, id in ipairs(ids) do
    local record, later = records[i], records[i].later
    index_subjects(id, record.seq, record.subjects)
    transition(id, record, later < 0 and 'queued' or 'delayed', { due = later > 0 and now + later or nil })
    save(id, record)
  end
end

-- Begins another life of a message that has ended; it may be another's now. `due`, or nil: at once.
begin_again = function(id, record, due, queue, priority, actor, subjects, payload)
  mark(record.seq, 'actor:' .. record.actor, 0)
  mark(record.seq, 'queue:' .. record.queue, 0)
  mark_as(record.seq, 'actor:' .. actor)
  mark_as(record.seq, 'queue:' .. queue)
  record.was_in = record.was_in or record.queue
  record.queue, record.priority, record.actor = queue, priority, actor
  record.starts, record.losses = 0, 0
  set_more(record, 'until', nil)
  set_more(record, 'unknown', nil)
  for subject in string.gmatch(subjects, '[^\30]+') do
    add_subject(id, record, subject)
  end
  replace_payload(record, payload)
  transition(id, record, due and 'delayed' or 'queued', { due = due })
end

-- Enqueues a message again that has ended; `later` in ms, negative: not delayed.
local function enqueue_again(id, record, later, queue, priority, actor, subjects, payload)
  begin_again(id, record, later >= 0 and now + later or nil, queue, priority, actor, subjects, payload)
  save(id, record)
end
