-- Adds up counters over a time that ends now. Arguments: how long, in ms; `t` for those of all actors together, or empty;
-- whether to answer for each window. Up to two hours it reads the windows of minutes, beyond that those of hours; the
-- first begins before that time. Answers the server's time, how long a window is, and for each its start, its fields and
-- their values; or all added up as one.
local span, kind, each = number(), argument(), argument() == '1'
local unit, prefix = 60000, 'worker:w'
if span > 7200000 then
  unit, prefix = 3600000, 'worker:h'
end
local windows, sums = { now, unit }, {}
local first, last = math.floor((now - span) / unit), math.floor(now / unit)
for window = first, last do
  local fields = call('HGETALL', prefix .. kind .. ':' .. window)
  if each then
    table.insert(windows, { window * unit, fields })
  else
    for i = 1, #fields, 2 do
      sums[fields[i]] = (sums[fields[i]] or 0) + tonumber(fields[i + 1])
    end
  end
end
if not each then
  local fields = {}
  for field, value in pairs(sums) do
    table.insert(fields, field)
    table.insert(fields, value)
  end
  table.insert(windows, { first * unit, fields })
end
return windows
