-- How an event is written: a line of JSON, its state first. worker/history/lines.py writes and reads all of it; a script
-- writes those that only the server knows of, and looks for states and errors.
local MEMBERS = { 't', 'w', 'n', 'i', 'x', 'y' }

local function encode_line(state, event)
  local line = '{"s":"' .. state .. '"'
  for _, name in ipairs(MEMBERS) do
    local value = event[name]
    if value then
      line = line .. ',"' .. name .. '":' .. (type(value) == 'number' and string.format('%.0f', value) or cjson.encode(value))
    end
  end
  return line .. '}\n'
end

-- The states of the events in a text; there may be others among them, which a message holds as data.
local function states_in(text)
  return string.gmatch(text, '{"s":"(%a+)"')
end

-- The types of the errors that the events in a text tell of.
local function errors_in(text)
  return string.gmatch(text, '"r":%["([^"]*)"')
end
