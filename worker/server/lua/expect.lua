-- include: runners
-- A sender tells what it expects its actors to be run with, so that what it sends lies where the first worker looks for it.
-- A worker that has joined with an actor knows better; and while one lives, it is to find what nobody can run.
-- Arguments: for each actor its name and its runner.
-- Answer: 1, or 0 if a worker lives.
-- Keys: leases, runners.
if call('ZRANGE', KEY.leases, now, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1] then
  return 0
end
while position < #ARGV do
  local actor, runner = argument(), argument()
  -- Not by HSETNX: with the right to that, who may only send could pause queues.
  if not call('HGET', KEY.runners, actor) then
    call('HSET', KEY.runners, actor, runner)
    remember_runner(runner)
  end
end
return 1
