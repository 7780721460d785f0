-- Stores messages and enqueues them, or delays them. Arguments: how many; for each its id, payload, queue, lane, actor,
-- delay in ms (-1: none), unique key (or empty) and for how many ms that holds.
-- Answers for each with the id of the message that holds the unique key, or an empty text.
local ids, records, answers = {}, {}, {}
for i = 1, number() do
  local id, payload, queue, lane, actor, later, unique, ttl =
    argument(), argument(), argument(), argument(), argument(), number(), argument(), number()
  answers[i] = ''
  local taken = unique ~= '' and not call('SET', 'worker:u:' .. unique, id, 'NX', 'PX', ttl)
  local holder = taken and call('GET', 'worker:u:' .. unique)
  local record = load(id)
  if taken and holder ~= id then
    answers[i] = holder
  elseif not record then
    table.insert(ids, id)
    table.insert(records, new_record(later, queue, lane, actor, payload))
  elseif FINAL[record.state] then
    -- It ran to its end before, and is wanted again.
    replace_payload(record, payload)
    put_again(id, record, later >= 0 and now + later or nil)
    save(id, record)
  end
  -- Otherwise it waits or runs: sent twice, because the first answer was lost.
end
if #ids > 0 then
  create(ids, records)
end
finish(0)
return answers
