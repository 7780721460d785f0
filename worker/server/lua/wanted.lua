-- include: server, keys, states, segments, record, renamed
-- Begins every script that finds messages. Its arguments come first: how many at most (0: only counts them), the number
-- below which to look (-1: from the newest), since and until when they are in their state (ms; -1: any), an error's type (or
-- empty), how many groups of marks, and then lists, each after its length: each group, of which they bear one mark; marks
-- that they all bear; subjects that they all have.
-- Keys: map, names, record, subject.
local most, below, since, till, error_type = number(), number(), number(), number(), argument()
local groups = {}
for i = 1, number() do
  groups[i] = list()
end
local names, subjects = list(), list()

-- An actor that was renamed is found under each of its names.
for i = #names, 1, -1 do
  local actor = string.match(names[i], '^actor:(.*)$')
  local known_as = actor and all_names(actor) or {}
  if known_as[2] or known_as[1] ~= actor then
    for n, name in ipairs(known_as) do
      known_as[n] = 'actor:' .. name
    end
    table.remove(names, i)
    table.insert(groups, known_as)
  end
end

-- What is worked out on the way is nobody else's: neither replicas nor the append-only file need it.
redis.set_repl(redis.REPL_NONE)

-- An error's type is given with or without its module.
if error_type ~= '' then
  local errors = {}
  for _, name in ipairs(call('SMEMBERS', KEY.names)) do
    if name == 'error:' .. error_type
      or string.sub(name, 1, 6) == 'error:' and string.sub(name, -#error_type - 1) == '.' .. error_type then
      table.insert(errors, name)
    end
  end
  if #errors == 0 then
    return { -1, 0 }
  end
  table.insert(groups, errors)
end

local check_time = since >= 0 or till >= 0

local function is_in_time(id)
  local _, _, at = decode_begin(call('GETRANGE', KEY.record(id), 0, LONGEST_HEAD_BEGIN))
  at = at or 0
  return (since < 0 or at >= since) and (till < 0 or at <= till)
end

-- `known`: one that it has.
local function has_subjects(id, known)
  for _, subject in ipairs(subjects) do
    if subject ~= known and not call('ZSCORE', KEY.subject(subject), id) then
      return false
    end
  end
  return true
end

local function bears(seq, name)
  return call('GETBIT', KEY.map(segment_of(seq), name), seq % SEGMENT) == 1
end
local function bears_one(seq, group)
  for _, name in ipairs(group) do
    if bears(seq, name) then
      return true
    end
  end
  return false
end
local function bears_all(seq)
  for _, name in ipairs(names) do
    if not bears(seq, name) then
      return false
    end
  end
  for _, group in ipairs(groups) do
    if not bears_one(seq, group) then
      return false
    end
  end
  return true
end
