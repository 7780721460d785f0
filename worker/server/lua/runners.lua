-- include: server, keys
-- The runners of actors: what a process runs a message with.
-- Keys: runners, runners_of_actors.

-- What runs the messages of an actor, as the last worker said that joined and has it, or a sender before any has; as long
-- as a worker says it (unsaid.lua).
local runners = {}
local function runner_of(actor)
  local runner = runners[actor]
  if not runner then
    runner = call('HGET', KEY.runners, actor) or 'thread'
    runners[actor] = runner
  end
  return runner
end

local function remember_runner(runner)
  if runner ~= 'thread' and runner ~= 'loop' then
    call('SADD', KEY.runners_of_actors, runner)
  end
end

-- All runners that any worker has had: its threads, its loop, and those that run one actor only.
local known_runners
local function all_runners()
  if not known_runners then
    known_runners = { 'thread', 'loop' }
    for _, runner in ipairs(call('SMEMBERS', KEY.runners_of_actors)) do
      table.insert(known_runners, runner)
    end
  end
  return known_runners
end
