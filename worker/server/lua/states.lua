-- The states of a message, in the order of its life; those in which it has ended.
local STATES = { 'queued', 'delayed', 'running', 'completed', 'skipped', 'dead', 'cancelled' }
local FINAL = { completed = true, skipped = true, dead = true, cancelled = true }
