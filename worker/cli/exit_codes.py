"""The exit codes of every command. `docs/reference/commands.md` tells what they mean."""

DONE = 0
FAILED = 1
MISUSED = 2
INTERRUPTED = 130
