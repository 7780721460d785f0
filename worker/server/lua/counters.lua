-- include: counting
-- Adds up counters over a time that ends now. Up to two hours it reads the windows of minutes, beyond that those of hours;
-- the first begins before that time. What is added up is read from the largest windows that fit in.
-- Arguments: how long, in ms; `t` for those of all actors together, which are answered for each window, or empty, for those of
-- each actor, all added up.
-- Answer: the server's time, how long a window is, and for each its start, and its fields and their
-- values separated by blanks; or all added up as one, each actor, counter and value separated by tabs.
-- Keys: window.
local span, kind = number(), argument()
local unit = span > 7200000 and HOUR or MINUTE
local first = math.floor((now - span) / unit)
local windows = { now, unit }
if kind == 't' then
  for window = first, math.floor(now / unit) do
    -- As one text: a week has tens of thousands of them.
    table.insert(windows, { window * unit, table.concat(call('HGETALL', KEY.window(WINDOWS[unit] .. 't', window)), ' ') })
  end
  return windows
end

-- The largest window that begins then; the newest of each length ends now.
local function window_at(start)
  for _, length in ipairs({ DAY, HOUR, TEN_MINUTES }) do
    if start % length == 0 then
      return length
    end
  end
  return MINUTE
end

local sums, start = {}, first * unit
while start <= now do
  local length = window_at(start)
  local fields = call('HGETALL', KEY.window(WINDOWS[length], string.format('%.0f', start / length)))
  for i = 1, #fields, 2 do
    local field = fields[i]
    sums[field] = (sums[field] or 0) + fields[i + 1]
  end
  start = start + length
end
local fields = {}
for field, value in pairs(sums) do
  table.insert(fields, field)
  table.insert(fields, value)
end
-- As one text: thousands of actors have a hundred thousand of them.
table.insert(windows, { first * unit, table.concat(fields, '\t') })
return windows
