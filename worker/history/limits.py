"""The limits of the history, by age and by count, for each state that ends a message."""

from __future__ import annotations

from worker.settings import Settings


def history_limits(settings: Settings) -> list[int]:
    """The limits as the scripts read them: the age of counters, then age and count for each state. Ages are in ms."""
    kept = round(settings.history_retention.total_seconds() * 1000)
    dead = round(settings.dead_retention.total_seconds() * 1000)
    most = settings.history_limit
    # In the order of the states: completed, skipped, dead, cancelled.
    return [round(kept / 1000), kept, most, kept, most, dead, most, kept, most]
