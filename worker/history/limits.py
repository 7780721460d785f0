"""How much history is kept: by age and by count, for each state in which messages end."""

from __future__ import annotations

from worker.settings import Settings


def history_limits(settings: Settings) -> list[int]:
    """What the scripts read: for how long counters are kept, then age and count for each state; milliseconds."""
    kept = round(settings.history_retention.total_seconds() * 1000)
    dead = round(settings.dead_retention.total_seconds() * 1000)
    most = settings.history_limit
    # The order of `read_limits`: completed, skipped, cancelled, dead.
    return [round(kept / 1000), kept, most, kept, most, kept, most, dead, most]
