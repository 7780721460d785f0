-- include: records, streams
-- Describes the queues.
-- Arguments: none.
-- Answer: the server's time, then for each queue its name, how many of its messages are queued,
-- delayed and running, since when the oldest waits (ms; -1: none does), and what is known of its pause (JSON, or empty).
-- Keys: depths, names, paused, queues, record.
local names = {}
for _, queue in ipairs(call('SMEMBERS', KEY.queues)) do
  names[queue] = true
end
for _, name in ipairs(call('SMEMBERS', KEY.names)) do
  if string.sub(name, 1, 6) == 'queue:' and #name > 6 then
    names[string.sub(name, 7)] = true
  end
end

-- Whether an entry is that of a message which waits, or of what nobody can read.
local function is_good(fields)
  local id = fields[1] == 'i' and fields[2]
  local record = id and load(id)
  if record then
    return is_current(fields, record.fence)
  end
  return not id or call('EXISTS', KEY.record(id)) == 1
end

-- The first entry that no worker has been given: since when it is there. Those of messages that were cancelled or purged
-- are passed over, so many at most.
local AT_ONCE, MOST = 100, 5000
local function oldest_in(stream)
  local after = after_the_given(stream)
  for _ = 1, MOST / AT_ONCE do
    local entries = call('XRANGE', stream, after, '+', 'COUNT', AT_ONCE)
    for _, entry in ipairs(entries) do
      if is_good(entry[2]) then
        return tonumber(string.match(entry[1], '^%d+'))
      end
    end
    if #entries < AT_ONCE then
      return nil
    end
    after = '(' .. entries[AT_ONCE][1]
  end
  return tonumber(string.match(after, '%d+'))
end

local answer = { now }
for queue in pairs(names) do
  local oldest
  for _, stream in ipairs(streams_of(queue)) do
    local at = oldest_in(stream)
    oldest = at and math.min(oldest or at, at) or oldest
  end
  local depths = call('HMGET', KEY.depths, queue .. '\tqueued', queue .. '\tdelayed', queue .. '\trunning')
  table.insert(answer, {
    queue, tonumber(depths[1] or 0), tonumber(depths[2] or 0), tonumber(depths[3] or 0), oldest or -1,
    call('HGET', KEY.paused, queue) or '',
  })
end
return answer
