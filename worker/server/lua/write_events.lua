-- include: transition, bytes
-- Stores events of runs that no broker of ours carries: outside a worker, or on Dramatiq's stock broker. Each run has a
-- record, made at its first event.
-- Arguments: the name of this commit, so that one that is sent again is not stored twice; retention in seconds of the hour
-- windows; limits of the history; then for each event: the record's id, queue, actor, attempt, the state it leaves the record
-- in (or empty), what kind of end it is (or empty), error type, histogram buckets (duration, wait; or empty), the line, how
-- many subjects, then these.
-- Answer: 1, or 0 when it was stored already.
-- Keys: commit.
local commit, retention, limits, bounds = argument(), number(), read_limits(), read_bounds()
if not call('SET', KEY.commit(commit), 1, 'NX', 'EX', 60) then
  return 0
end
while position < #ARGV do
  local id, queue, actor, attempt, state, kind, error_type, took, waited, line =
    argument(), argument(), argument(), number(), argument(), argument(), argument(), argument(), argument(), argument()
  local record = load(id)
  if not record then
    record = new_record(queue, 'normal', actor, '', '')
    record.fence = 1
    index_new({ id }, { record })
    transition(id, record, 'running', { elsewhere = true })
  end
  record.attempts = math.max(record.attempts, attempt)
  append(id, record, line)
  for _, subject in ipairs(list()) do
    add_subject(id, record, subject)
  end
  if kind ~= '' then
    count(actor, kind)
    for letter, bucket in pairs({ d = took, q = waited }) do
      if bucket ~= '' then
        count(actor, letter .. bucket)
      end
    end
  end
  mark_end(record, kind, error_type)
  if state ~= '' and state ~= record.state then
    transition(id, record, state, { elsewhere = true, cause = error_type })
  end
  save(id, record)
end
retire(2 * ended + 10, limits)
keep_within(bounds.history, 2 * ended + 10)
finish(retention)
return 1
