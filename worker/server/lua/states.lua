-- The states of a message, in the order of its life; those in which it has ended.
local STATES = { 'queued', 'delayed', 'running', 'completed', 'skipped', 'dead', 'cancelled' }
local FINAL = { completed = true, skipped = true, dead = true, cancelled = true }
-- The ends of attempts by which messages are marked, `ended:<end>`.
local MARKED_ENDS = { failed = true, snoozed = true, cancelled = true, lost = true }
-- The ends of attempts that count as errors.
local FAILURES = { failed = true, lost = true }
