-- include: transition
-- What becomes of a message when the process that had it is gone, or its entry is.

-- How many attempts were lost in this script.
local lost = 0

-- Tells how an attempt ended; `worker`: the process that ran it, `?:0` where nobody knows.
local function end_attempt(id, record, worker, kind, text, is_last)
  if kind == 'lost' then
    lost = lost + 1
  end
  append(id, record, encode_line(kind, {
    t = now, w = worker, n = record.attempts, x = text .. (is_last and '; dead letter' or ''),
  }))
  mark_end(record, kind, '')
  count(record.actor, kind)
end

-- Gives a message to others, or makes it a dead letter if it is certain that it takes processes down. After the kind
-- `cancelled` it is no crash, and the start does not count.
local function give_to_others(id, record, worker, kind, text, is_certain)
  local ran = record.state == 'running'
  local is_last = ran and more_field(record, 'once') ~= nil
  if kind == 'lost' then
    record.losses = record.losses + 1
    is_last = is_last or is_certain
  elseif ran then
    record.starts = record.starts - 1
  end
  if ran then
    end_attempt(id, record, worker, kind, text, is_last)
  end
  if is_last then
    transition(id, record, 'dead', { cause = 'lost' })
  else
    transition(id, record, 'queued', { priority = 'back' })
  end
  save(id, record)
end
