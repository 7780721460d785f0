-- include: retention
-- Stores events of runs that no broker of ours carries: outside a worker, or on Dramatiq's stock broker. Each run has a
-- record, made at its first event. Arguments: the name of this commit, so that one that is sent again
-- is not stored twice; retention in seconds of the hour windows; limits of the history; then for each event: the record's id,
-- queue, actor, attempt, the state it leaves the record in (or empty), what kind of end it is (or empty), error type,
-- histogram buckets (duration, wait; or empty), the line, how many subjects, then these.
local commit, retention, limits = argument(), number(), read_limits()
if not call('SET', KEY.commit(commit), 1, 'NX', 'EX', 60) then
  return 0
end
local ended = 0
while position < #ARGV do
  local id, queue, actor, attempt, state, kind, errors, took, waited, line =
    argument(), argument(), argument(), number(), argument(), argument(), argument(), argument(), argument(), argument()
  local record = load(id)
  if not record then
    record = new_record(-1, queue, 'normal', actor, '')
    record.state = 'running'
    create({ id }, { record })
  end
  record.attempts = math.max(record.attempts, attempt)
  append(id, record, line)
  for _ = 1, number() do
    add_subject(id, record, argument())
  end
  if kind ~= '' then
    count(actor, kind)
    for letter, bucket in pairs({ d = took, q = waited }) do
      if bucket ~= '' then
        count(actor, letter .. bucket)
      end
    end
    if kind == 'failed' or kind == 'cancelled' then
      mark_as(record.seq, 'ended:' .. kind)
    end
  end
  if errors ~= '' then
    mark_as(record.seq, 'error:' .. errors)
  end
  if state ~= '' and state ~= record.state then
    unmark_death(record, function(name) mark(record.seq, name, 0) end)
    if state == 'dead' then
      mark_death(record.seq, errors)
    end
    set_state(record, state)
    ended = ended + (FINAL[state] and 1 or 0)
  end
  save(id, record)
end
retire(2 * ended + 10, limits)
finish(retention)
return 1
