-- Stores what happened to messages: events, and ends of attempts with all that goes with them, each together or not at
-- all. Who lost a message to another process (its fence is old) changes nothing.
-- Arguments: who commits and the number of this commit, so that one that is sent again is not stored twice; whether to
-- do without events; retention in seconds of the hour windows; limits of the history; then the messages.
-- Answers with the ids of those that were refused.
local committer, commit, lean, retention = argument(), argument(), argument() == '1', number()
local limits = read_limits()
if call('GET', 'worker:commit:' .. committer) == commit then
  return {}
end
call('SET', 'worker:commit:' .. committer, commit, 'EX', 3600)

local refused, new_ids, new_records, ended = {}, {}, {}, 0

local function follow(apply)
  for _ = 1, number() do
    local id, payload, queue, lane, actor, later =
      argument(), argument(), argument(), argument(), argument(), number()
    if apply and not call('GET', 'worker:m:' .. id) then
      table.insert(new_ids, id)
      table.insert(new_records, new_record(later, queue, lane, actor, payload))
    end
  end
end

local function finish_attempt(id, record, held)
  local outcome, kind, actor, errors, took, waited = argument(), argument(), argument(), argument(), argument(), argument()
  local payload, later, unique = argument(), number(), argument()
  if not held then
    return
  end
  count(actor, kind)
  if took ~= '' then
    count(actor, 'd' .. took)
  end
  if waited ~= '' then
    count(actor, 'q' .. waited)
  end
  if kind == 'failed' or kind == 'lost' or kind == 'cancelled' then
    mark_as(record.seq, 'ended:' .. kind)
  end
  if errors ~= '' then
    mark_as(record.seq, 'error:' .. errors)
  end
  record.starts, record.losses = 0, 0
  if outcome == 'retry' then
    record.payload = payload
    put_again(id, record, later > 0 and now + later or nil)
  elseif outcome == 'back' then
    put_again(id, record, nil, 'back')
  else
    set_state(record, outcome)
    record.fence = record.fence + 1
    ended = ended + 1
    if unique ~= '' and call('GET', 'worker:u:' .. unique) == id then
      call('DEL', 'worker:u:' .. unique)
    end
  end
end

while position < #ARGV do
  local id, fence, attempt, started, lines = argument(), number(), number(), argument() == '1', argument()
  local record = load(id)
  local held = record and record.fence == fence and not FINAL[record.state]
  local subjects = {}
  for i = 1, number() do
    subjects[i] = argument()
  end
  local stream = argument()
  if stream ~= '' then
    local entry = argument()
    local mine = call('XACK', stream, 'workers', entry) == 1
    if mine then
      call('XDEL', stream, entry)
    end
    held = held and mine
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
    for _, subject in ipairs(subjects) do
      add_subject(id, record, subject)
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

if #new_ids > 0 then
  create(new_ids, new_records)
end
retire(2 * ended + 10, limits)
finish(retention)
return refused
