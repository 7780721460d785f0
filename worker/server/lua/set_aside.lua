-- include: transition
-- Sets messages aside that this process cannot run: it knows no such actor, or not with such arguments. Others may. Each is
-- delayed, and a dead letter when nobody could run it for too long. It counts neither as an attempt nor as a crash.
-- Arguments: for how long such a message waits, in ms; then for each its stream, entry, id and fence, the line of the event
-- that tells why, and that of the one that ends it.
-- Answer: for each `delayed`, `dead`, or an empty text where the message is not this process's any more.
local waits = number()
local SHORTEST_DELAY, LONGEST_DELAY = 5000, 60000

local function bury_it(id, record, line)
  append(id, record, line)
  local cause = errors_in(line)()
  mark_end(record, 'failed', cause)
  count(record.actor, 'failed')
  set_more(record, 'unknown', nil)
  transition(id, record, 'dead', { cause = cause })
end

local function delay_it(id, record, line, since, times, left)
  -- The same reason is told once: from its text on, two lines of the same reason are the same.
  if not string.find(record.body, string.match(line, '"x":.*'), 1, true) then
    append(id, record, line)
  end
  set_more(record, 'unknown', since .. ',' .. times + 1)
  transition(id, record, 'delayed', { due = now + math.min(SHORTEST_DELAY * 2 ^ times, LONGEST_DELAY, left) })
end

local answers = {}
while position < #ARGV do
  local stream, entry, id, fence, line, last_line = argument(), argument(), argument(), number(), argument(), argument()
  local record = load(id)
  if remove_entry(stream, entry) and record and record.fence == fence and not FINAL[record.state] then
    local since, times = string.match(more_field(record, 'unknown') or now_text .. ',0', '(%d+),(%d+)')
    local left = since + waits - now
    if left > 0 then
      delay_it(id, record, line, since, times, left)
    else
      bury_it(id, record, last_line)
    end
    save(id, record)
    table.insert(answers, record.state)
  else
    table.insert(answers, '')
  end
end
finish(0)
return answers
