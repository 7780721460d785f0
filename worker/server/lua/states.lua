-- The states of a message, in the order of its life; those in which it has ended.
local STATES = { 'queued', 'delayed', 'running', 'completed', 'skipped', 'dead', 'cancelled' }
-- An ended message needs its arguments no more, but if it is a dead letter.
local SETTLED = { 'completed', 'skipped', 'cancelled' }
local FINAL = { completed = true, skipped = true, dead = true, cancelled = true }
-- The ends of attempts by which messages are marked, `ended:<end>`.
local MARKED_ENDS = { failed = true, snoozed = true, cancelled = true, lost = true }
-- The ends of attempts that count as errors.
local FAILURES = { failed = true, lost = true }
