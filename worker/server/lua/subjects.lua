-- include: server, keys
-- What messages are about, each part as `name=value`: in a record with the character 31 around each.
-- Keys: subject.

-- The parts as a sender writes them, with the character 30 between two, as a record has them.
local function read_subjects(text)
  return text == '' and '' or '\31' .. string.gsub(text, '\30', '\31') .. '\31'
end

local function index_subjects(id, seq, subjects)
  for subject in string.gmatch(subjects, '[^\31]+') do
    call('ZADD', KEY.subject(subject), seq, id)
  end
end
