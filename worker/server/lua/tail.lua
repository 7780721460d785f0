-- include: server, keys
-- The live tail: new events, as they are stored. worker/history/tail.py reads it.
-- Keys: tail.
local TAIL_BYTES = 16777216
local TAIL_ENTRIES = 1000
local TAIL_MESSAGES = 32

-- Of each message two texts, which are put together with those of others only: a text costs as much as it is long.
local tail = {}
local function add_to_tail(id, record, lines)
  local size = #tail
  tail[size + 1] = id .. '\t' .. record.actor .. '\t' .. record.queue .. '\n'
  tail[size + 2] = lines
end

-- As many entries as have about TAIL_BYTES, if all were like the newest; `retention`: seconds.
local function store_tail(retention)
  local longest = 1
  for from = 1, #tail, 2 * TAIL_MESSAGES do
    local text = table.concat(tail, '', from, math.min(from + 2 * TAIL_MESSAGES - 1, #tail))
    longest = math.max(longest, #text)
    call('XADD', KEY.tail, '*', 'e', text)
  end
  if #tail > 0 then
    call('XTRIM', KEY.tail, 'MAXLEN', '~', math.max(TAIL_ENTRIES, math.floor(TAIL_BYTES / longest)))
    if retention > 0 then
      call('XTRIM', KEY.tail, 'MINID', now - 1000 * retention)
    end
  end
end
