-- Removes a dead letter, with all that is known of it. Arguments: id. Answers 1, or 0 if it is no dead letter (any more).
local id = argument()
local record = load(id)
if not record or record.state ~= 'dead' then
  return 0
end
forget(id, record)
finish(0)
return 1
