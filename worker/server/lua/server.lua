-- The server, its clock, and the arguments of the script.
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_text = string.format('%.0f', now)

-- Arguments are read one after the other.
local position = 0
local function argument()
  position = position + 1
  return ARGV[position]
end
local function number()
  return tonumber(argument())
end
-- A number of texts, and then these.
local function list()
  local found = {}
  for i = 1, number() do
    found[i] = argument()
  end
  return found
end
