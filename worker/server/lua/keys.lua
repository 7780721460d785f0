-- Every key of a namespace: no other script writes the name of one. docs/reference/redis.md tells what each holds.
-- KEYS[1] is the beginning of all of them, `{<namespace>}:`; a script is routed by it, and all its keys lie in one slot.
local PREFIX = KEYS[1]
local KEY = {
  arguments = PREFIX .. 'arguments',
  audit = PREFIX .. 'audit',
  bytes = PREFIX .. 'bytes',
  changed = PREFIX .. 'changed',
  depths = PREFIX .. 'depths',
  due = PREFIX .. 'due',
  ending = PREFIX .. 'ending',
  failures = PREFIX .. 'failures',
  kept = PREFIX .. 'kept',
  kept_at = PREFIX .. 'kept-at',
  layout = PREFIX .. 'layout',
  leases = PREFIX .. 'leases',
  logged_out = PREFIX .. 'logged-out',
  misplaced = PREFIX .. 'misplaced',
  names = PREFIX .. 'names',
  orders = PREFIX .. 'orders',
  patience = PREFIX .. 'patience',
  paused = PREFIX .. 'paused',
  queues = PREFIX .. 'queues',
  refusals = PREFIX .. 'refusals',
  renamed = PREFIX .. 'renamed',
  runners = PREFIX .. 'runners',
  runners_of_actors = PREFIX .. 'runners-of-actors',
  runners_said_by = PREFIX .. 'runners-said-by',
  runners_unsaid = PREFIX .. 'runners-unsaid',
  segments = PREFIX .. 'segments',
  seq = PREFIX .. 'seq',
  states = PREFIX .. 'states',
  stopped = PREFIX .. 'stopped',
  sums = PREFIX .. 'sums',
  tail = PREFIX .. 'events',
  wake = PREFIX .. 'wake',
  workers = PREFIX .. 'workers',
}
function KEY.cancel(id) return PREFIX .. 'cancel:' .. id end
function KEY.commit(name) return PREFIX .. 'commit:' .. name end
function KEY.dramatiq(name) return PREFIX .. 'dramatiq:' .. name end
function KEY.ended(state) return PREFIX .. 'ended:' .. state end
function KEY.lease(name) return PREFIX .. 'lease:' .. name end
function KEY.map(segment, name) return PREFIX .. 'x:' .. segment .. ':' .. name end
function KEY.record(id) return PREFIX .. 'm:' .. id end
function KEY.scratch(number) return PREFIX .. 'x:scratch' .. number end
function KEY.seen(id) return PREFIX .. 'seen:' .. id end
function KEY.stream(queue, priority, runner) return PREFIX .. 'q:' .. queue .. ':' .. priority .. ':' .. runner end
function KEY.subject(subject) return PREFIX .. 's:' .. subject end
function KEY.times(segment) return PREFIX .. 'at:' .. segment end
function KEY.unique(unique) return PREFIX .. 'u:' .. unique end
function KEY.window(kind, number) return PREFIX .. kind .. ':' .. number end
