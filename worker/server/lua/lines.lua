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

-- The types in an error's type: that of a group names those of all errors in it, first of the one that decides.
local function types_in(error_type)
  return string.gmatch(error_type, '([^,]+),? ?')
end

-- The types of the errors that the events in a text tell of.
local function errors_in(text)
  local found = {}
  for error_type in string.gmatch(text, '"r":%["([^"]*)"') do
    for one in types_in(error_type) do
      table.insert(found, one)
    end
  end
  local place = 0
  return function()
    place = place + 1
    return found[place]
  end
end
