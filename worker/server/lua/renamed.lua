-- include: server, keys
-- Actors that were renamed: a message under an old name of an actor is that actor's, wherever it is told.
-- Keys: renamed.

-- The names of today by the old ones, as the last worker said that joined; read when it is first needed.
local new_names
local function names_of_today()
  if not new_names then
    new_names = {}
    local found = call('HGETALL', KEY.renamed)
    for i = 1, #found, 2 do
      new_names[found[i]] = found[i + 1]
    end
  end
  return new_names
end

local function name_of_today(actor)
  return names_of_today()[actor] or actor
end

-- All names of an actor, of which one is given.
local function all_names(actor)
  local names = { name_of_today(actor) }
  for old, new in pairs(names_of_today()) do
    if new == names[1] then
      table.insert(names, old)
    end
  end
  return names
end

-- A record as it is shown: its actor has the name of today.
local BEFORE_ACTOR = '^(' .. string.rep('[^\t\n]*\t', 10) .. ')([^\t\n]*)()'
local function with_name_of_today(text)
  if not text or not next(names_of_today()) then
    return text
  end
  local before, actor, rest = string.match(text, BEFORE_ACTOR)
  local new = before and new_names[actor]
  return new and before .. new .. string.sub(text, rest) or text
end
