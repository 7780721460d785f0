-- include: server, keys, runners
-- The streams in which entries wait: one for each queue, priority and runner.
-- Keys: stream.
local PRIORITIES = { 'suspect', 'lost', 'back', 'high', 'normal', 'low' }

-- The streams of a queue, the most urgent first.
local function streams_of(queue)
  local streams = {}
  for _, priority in ipairs(PRIORITIES) do
    for _, runner in ipairs(all_runners()) do
      streams[#streams + 1] = KEY.stream(queue, priority, runner)
    end
  end
  return streams
end

-- An entry is good for one delivery: that of its fence.
local function add_entry(id, fence, queue, priority, actor)
  call('XADD', KEY.stream(queue, priority, runner_of(actor)), '*', 'i', id, 'f', fence)
end
local function is_current(fields, fence)
  return fields[3] ~= 'f' or tonumber(fields[4]) == fence
end

local function remove_entry(stream, entry)
  call('XDEL', stream, entry)
  return call('XACK', stream, 'workers', entry) == 1
end

-- The priority and the runner of a stream.
local places = {}
local function place_of(stream)
  local place = places[stream]
  if not place then
    place = {}
    place.priority, place.runner = string.match(stream, ':([^:]*):([^:]*)$')
    places[stream] = place
  end
  return place
end

-- Whether an entry of an actor lies in the stream of another runner than the actor's.
local function is_misplaced(stream, actor)
  return place_of(stream).runner ~= runner_of(actor)
end
local function move_entry(stream, entry, id, record)
  remove_entry(stream, entry)
  add_entry(id, record.fence, record.queue, place_of(stream).priority, record.actor)
end

-- The entry after which no worker has been given any, as a start of a range.
local function after_the_given(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  return not groups.err and groups[1] and '(' .. groups[1][8] or '-'
end
