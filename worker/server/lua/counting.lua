-- include: server, keys
-- Counters of actors and of all: how attempts ended, and histograms of times.
-- Keys: sums, window.
local MINUTE, TEN_MINUTES, HOUR, DAY = 60000, 600000, 3600000, 86400000
local WINDOWS = { [MINUTE] = 'w', [TEN_MINUTES] = 'w10', [HOUR] = 'h', [DAY] = 'd' }
local MINUTES_KEPT = 93600

local counters = {}
local function count(actor, what, amount)
  local own = counters[actor]
  if not own then
    own = {}
    counters[actor] = own
  end
  own[what] = (own[what] or 0) + (amount or 1)
end

-- Those of each actor, and those of all together.
local function added_up()
  local fields, totals = {}, {}
  for actor, own in pairs(counters) do
    for what, amount in pairs(own) do
      fields[actor .. '\t' .. what] = amount
      totals[what] = (totals[what] or 0) + amount
    end
  end
  return fields, totals
end

-- `retention`: for how many seconds the windows of hours and days are kept.
local function store_counters(retention)
  if not next(counters) then
    return
  end
  local of_actors, totals = added_up()
  for length, letter in pairs(WINDOWS) do
    local kept = length < HOUR and MINUTES_KEPT or math.max(retention, MINUTES_KEPT)
    for kind, fields in pairs({ [''] = of_actors, ['t'] = (length == MINUTE or length == HOUR) and totals or nil }) do
      local window = KEY.window(letter .. kind, math.floor(now / length))
      for field, amount in pairs(fields) do
        call('HINCRBY', window, field, amount)
      end
      call('EXPIRE', window, kept)
    end
  end
  for field, amount in pairs(of_actors) do
    call('HINCRBY', KEY.sums, field, amount)
  end
end
