-- include: server, keys
-- The runners of actors: what a process runs a message with.
-- Keys: runners.

-- What runs the messages of an actor, as the last worker said that joined and has it.
local runners = {}
local function runner_of(actor)
  local runner = runners[actor]
  if not runner then
    runner = call('HGET', KEY.runners, actor) or 'thread'
    runners[actor] = runner
  end
  return runner
end
