-- Finds messages that bear all given marks, newest first. Arguments: how many at most, the number below which to look
-- (-1: from the newest), a subject (or empty), how many marks, then these. Answers the number below which to go on
-- (-1: there are no more), then the ids.
local most, below, subject = number(), number(), argument()
local names = {}
for i = 1, number() do
  names[i] = argument()
end
if below < 0 then
  below = tonumber(call('GET', 'worker:seq') or 0)
end

local function bears_all(seq)
  for _, name in ipairs(names) do
    if call('GETBIT', 'worker:x:' .. segment_of(seq) .. ':' .. name, seq % SEGMENT) == 0 then
      return false
    end
  end
  return true
end

if subject ~= '' then
  local found = { -1 }
  local members = call('ZREVRANGEBYSCORE', 'worker:s:' .. subject, '(' .. below, '-inf', 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #members, 2 do
    if bears_all(tonumber(members[i + 1])) then
      table.insert(found, members[i])
    end
  end
  if #members == 2 * most then
    found[1] = tonumber(members[#members])
  end
  return found
end

-- The segment's bits that all names have, as text: one bit each. Without names: of all messages, each of which has a state.
local function common(segment)
  local operation, wanted = 'AND', names
  if #names == 0 then
    operation = 'OR'
    wanted = { 'state:queued', 'state:delayed', 'state:running', 'state:completed', 'state:skipped', 'state:dead', 'state:cancelled' }
  end
  local keys = {}
  for i, name in ipairs(wanted) do
    keys[i] = 'worker:x:' .. segment .. ':' .. name
  end
  if #keys == 1 then
    return call('GET', keys[1]) or ''
  end
  call('BITOP', operation, 'worker:x:scratch', unpack(keys))
  return call('GET', 'worker:x:scratch') or ''
end

local found = { -1 }
local segments = call('ZREVRANGE', 'worker:segments', 0, -1)
table.sort(segments, function(a, b) return tonumber(a) > tonumber(b) end)
for _, segment in ipairs(segments) do
  local first = segment * SEGMENT
  if first < below then
    local map = common(segment)
    for byte = math.min(#map, math.floor((below - 1 - first) / 8) + 1), 1, -1 do
      local value = string.byte(map, byte)
      if value ~= 0 then
        for low = 0, 7 do
          local seq = first + byte * 8 - 1 - low
          if math.floor(value / 2 ^ low) % 2 == 1 and seq < below then
            local id = call('LINDEX', 'worker:x:' .. segment .. ':ids', seq - first)
            if id then
              table.insert(found, id)
            end
            if #found > most then
              found[1] = seq
              call('DEL', 'worker:x:scratch')
              return found
            end
          end
        end
      end
    end
  end
end
call('DEL', 'worker:x:scratch')
return found
