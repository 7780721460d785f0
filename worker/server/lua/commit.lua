-- include: retention
-- Stores what happened to messages: events, and ends of attempts with all that goes with them, each together or not at
-- all. Who lost a message to another process (its fence is old) changes nothing.
-- Arguments: the name of this commit, so that one that is sent again is not stored twice; whether to do without events;
-- retention in seconds of the hour windows; limits of the history; then the messages, the fields of each separated by the
-- character 31.
-- Answers with the ids of those that were refused.
local commit, lean, retention = argument(), argument() == '1', number()
local limits = read_limits()
if not call('SET', KEY.commit(commit), 1, 'NX', 'EX', 60) then
  return {}
end

local refused, new_ids, new_records, is_new, ended, acknowledged = {}, {}, {}, {}, 0, {}

local fields, place
local function open_fields(text)
  fields, place = {}, 0
  local size, from = 0, 1
  while true do
    local separator = string.find(text, '\31', from, true)
    size = size + 1
    if not separator then
      fields[size] = string.sub(text, from)
      return
    end
    fields[size] = string.sub(text, from, separator - 1)
    from = separator + 1
  end
end
local function field()
  place = place + 1
  return fields[place]
end

local function follow(apply)
  for _ = 1, tonumber(field()) do
    local id, payload, queue, lane, actor, later = field(), field(), field(), field(), field(), tonumber(field())
    local record = apply and not is_new[id] and load(id)
    if record and FINAL[record.state] then
      enqueue_again(id, record, later, queue, lane, actor, payload)
    elseif apply and not is_new[id] and not record then
      is_new[id] = true
      table.insert(new_ids, id)
      table.insert(new_records, new_record(later, queue, lane, actor, payload))
    end
  end
end

local function finish_attempt(id, record, held)
  local outcome, kind, errors, took, waited, blocked = field(), field(), field(), field(), field(), field()
  local payload, later, unique = field(), tonumber(field()), field()
  if not held then
    return
  end
  count(record.actor, kind)
  if blocked ~= '' then
    count(record.actor, 'blocked', tonumber(blocked))
  end
  if took ~= '' then
    count(record.actor, 'd' .. took)
  end
  if waited ~= '' then
    count(record.actor, 'q' .. waited)
  end
  if kind == 'failed' or kind == 'lost' or kind == 'cancelled' then
    mark_as(record.seq, 'ended:' .. kind)
  end
  if errors ~= '' then
    mark_as(record.seq, 'error:' .. errors)
  end
  record.starts, record.losses = 0, 0
  if (outcome == 'retry' or outcome == 'back' or outcome == 'dead') and call('EXISTS', KEY.cancel(id)) == 1 then
    -- Somebody wanted it to end while it ran.
    outcome = 'cancelled'
  end
  if outcome == 'dead' then
    mark_death(record.seq, errors)
  end
  if outcome == 'retry' then
    replace_payload(record, payload)
    put_again(id, record, later > 0 and now + later or nil)
  elseif outcome == 'back' then
    put_again(id, record, nil, 'back')
  else
    set_state(record, outcome)
    record.fence = record.fence + 1
    ended = ended + 1
    if unique ~= '' and call('GET', KEY.unique(unique)) == id then
      call('DEL', KEY.unique(unique))
    end
  end
end

while position < #ARGV do
  open_fields(argument())
  local id, fence, attempt, started, lines = field(), tonumber(field()), tonumber(field()), field() == '1', field()
  local record = load(id)
  local held = record and record.fence == fence and not FINAL[record.state]
  for _ = 1, tonumber(field()) do
    local subject = field()
    if held then
      add_subject(id, record, subject)
    end
  end
  local stream = field()
  if stream ~= '' then
    acknowledged[stream] = acknowledged[stream] or {}
    table.insert(acknowledged[stream], field())
  end
  if held then
    if started and record.state ~= 'running' then
      set_state(record, 'running')
      record.starts = record.starts + 1
    end
    record.attempts = math.max(record.attempts, attempt)
    if not lean then
      append(id, record, lines)
    end
  else
    table.insert(refused, id)
  end
  if stream ~= '' then
    finish_attempt(id, record, held)
    follow(held)
  end
  if held then
    save(id, record)
  end
end

for stream, entries in pairs(acknowledged) do
  call('XACK', stream, 'workers', unpack(entries))
  call('XDEL', stream, unpack(entries))
end
if #new_ids > 0 then
  create(new_ids, new_records)
end
retire(2 * ended + 10, limits)
finish(retention)
return refused
