-- include: request, retention
-- Removes dead letters and their history.
-- Arguments: as request.lua, then ids.
-- Answer: for each an empty text, or the state in which it is instead.
local answers = {}
while position < #ARGV do
  local id = argument()
  local record = load(id)
  if not record or record.state ~= 'dead' then
    table.insert(answers, record and record.state or 'unknown')
  else
    table.insert(done, id)
    forget(id, record)
    table.insert(answers, '')
  end
end
finish_request()
return answers
