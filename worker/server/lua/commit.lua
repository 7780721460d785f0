-- include: transition, bytes, renamed
-- Stores what happened to messages: events, and ends of attempts with all that goes with them, each together or not at
-- all. A process that lost a message to another (its fence is old) changes nothing. worker/broker/commits.py writes the fields.
-- Arguments: the name of this commit, so that one that is sent again is not stored twice; whether to do without events;
-- retention in seconds of the hour windows; limits of the history; then for each message its fields, separated by the
-- character 31, and its lines of events. The fields: id, fence, attempt, whether it has started (`1`, `once`: and may not
-- start again, or empty); stream, or empty like all up to the subjects when the attempt goes on; entry, outcome (`retry`,
-- `back`, or a state), kind of the end, error's type, buckets of duration and wait, milliseconds blocked, payload and delay
-- in ms of the retry; how many subjects, and these; and if it has ended, how many follow-ups, and for each of these what
-- enqueue_new.lua is told and its delay in ms; and if it is a member of one of Dramatiq's groups, the group, for how many ms
-- its count is kept, and the callbacks like follow-ups.
-- Answer: the ids of those that were refused, and of the follow-ups that were not enqueued: a message with their id waits
-- or runs already.
-- Keys: cancel, commit, dramatiq.
local commit, lean, retention = argument(), argument() == '1', number()
local limits, bounds = read_limits(), read_bounds()
if not call('SET', KEY.commit(commit), 1, 'NX', 'EX', 60) then
  return { {}, {} }
end

local refused, taken, new_ids, new_records, is_new, acknowledged = {}, {}, {}, {}, {}, {}

-- The fields that all have are read at once, for one after the other they cost as much as all that is done with them.
local FIELDS_OF_ALL = '^' .. string.rep('([^\31]*)\31', 14) .. '()'

-- The others are read one after the other; nil: there is none any more.
local fields, place
local function field()
  if not place then
    return nil
  end
  local from, to = place, string.find(fields, '\31', place, true)
  place = to and to + 1
  return string.sub(fields, from, (to or 0) - 1)
end

local function follow(apply)
  for _ = 1, tonumber(field()) do
    local id, payload, queue, priority, actor, subjects = field(), field(), field(), field(), field(), field()
    local later = tonumber(field())
    local record = apply and not is_new[id] and load(id)
    if apply and (is_new[id] or record and not FINAL[record.state]) then
      table.insert(taken, id)
    elseif record then
      enqueue_again(id, record, later, queue, priority, actor, subjects, payload)
    elseif apply then
      record = new_record(queue, priority, actor, payload, read_subjects(subjects))
      record.later, is_new[id] = later, true
      table.insert(new_ids, id)
      table.insert(new_records, record)
    end
  end
end

-- Counts a member of a group that has ended; answers whether it was the last. Dramatiq has set how many there are.
local function completes(group, ttl)
  local key = KEY.dramatiq(group)
  local left = tonumber(call('GET', key) or 1) - 1
  call('SET', key, math.max(left, 0), 'PX', ttl)
  return left == 0
end

local function count_end(actor, kind, took, waited, blocked)
  count(actor, kind)
  if blocked ~= '' then
    count(actor, 'blocked', tonumber(blocked))
  end
  if took ~= '' then
    count(actor, 'd' .. took)
  end
  if waited ~= '' then
    count(actor, 'q' .. waited)
  end
end

-- Whether the message was cancelled after its attempt had begun, and before the server knew that: what ran is told.
local function ran_as_cancelled(id, record, fence, attempt, started)
  return record.state == 'cancelled' and record.fence == fence + 1
    and (started and record.attempts < attempt or call('GET', KEY.cancel(id)) == '')
end

-- Gives a message whose attempt begins the name that its actor has today.
local function take_name(record)
  local name = name_of_today(record.actor)
  if name ~= record.actor then
    mark(record.seq, 'actor:' .. record.actor, 0)
    mark_as(record.seq, 'actor:' .. name)
    record.actor = name
  end
end

-- Answers whether the message has ended well.
local function finish_attempt(id, record, outcome, error_type, payload, later)
  record.starts, record.losses = 0, 0
  if record.state == 'cancelled' and outcome ~= 'completed' and outcome ~= 'skipped' then
    call('DEL', KEY.cancel(id))
  elseif outcome == 'retry' then
    local due = tonumber(later) > 0 and now + later or nil
    transition(id, record, due and 'delayed' or 'queued', { due = due })
    if not FINAL[record.state] then
      -- One that was cancelled has no next attempt: it stays as it was, with the unique key that it has given up.
      replace_payload(record, payload)
    end
  elseif outcome == 'back' then
    transition(id, record, 'queued', { priority = 'back' })
  else
    transition(id, record, outcome, outcome == 'dead' and { cause = error_type } or nil)
  end
  return outcome == 'completed' or outcome == 'skipped'
end

while position < #ARGV do
  fields = argument()
  local lines = argument()
  local id, fence, attempt, start, stream, entry, outcome, kind, error_type, took, waited, blocked, payload, later, rest =
    string.match(fields, FIELDS_OF_ALL)
  fence, attempt, place = tonumber(fence), tonumber(attempt), rest
  local started = start ~= ''
  local record = load(id)
  local is_late = record and ran_as_cancelled(id, record, fence, attempt, started)
  local held = is_late or record and record.fence == fence and not FINAL[record.state]
  for _ = 1, tonumber(field()) do
    local subject = field()
    if held then
      add_subject(id, record, subject)
    end
  end
  if stream ~= '' then
    acknowledged[stream] = acknowledged[stream] or {}
    table.insert(acknowledged[stream], entry)
  end
  if held then
    if is_late then
      call('SET', KEY.cancel(id), '', 'EX', 86400)
    elseif started and record.state ~= 'running' then
      set_more(record, 'once', start == 'once' and '1' or nil)
      set_more(record, 'unknown', nil)
      take_name(record)
      transition(id, record, 'running')
    end
    record.attempts = math.max(record.attempts, attempt)
    if not lean then
      append(id, record, lines)
    end
  else
    table.insert(refused, id)
  end
  local is_done = false
  if held then
    if stream ~= '' then
      count_end(record.actor, kind, took, waited, blocked)
      mark_end(record, kind, error_type)
      is_done = finish_attempt(id, record, outcome, error_type, payload, later)
    end
    -- Before the follow-ups: one of them may have its id.
    save(id, record)
  end
  if stream ~= '' then
    follow(held)
    local group, ttl = field(), field()
    if group then
      follow(is_done and completes(group, ttl))
    end
  end
end

for stream, entries in pairs(acknowledged) do
  call('XACK', stream, 'workers', unpack(entries))
  call('XDEL', stream, unpack(entries))
end
if #new_ids > 0 then
  enqueue_new(new_ids, new_records)
end
retire(2 * ended + 10, limits)
keep_within(bounds.history, 2 * ended + 10)
finish(retention)
return { refused, taken }
