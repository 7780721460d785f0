"""The limits of the history: by age and by count for each state that ends a message, and by bytes for all."""

from __future__ import annotations

from worker.settings import Settings


def history_limits(settings: Settings) -> list[int]:
    """The limits as the scripts read them: the age of counters, then age and count for each state, then the bytes.

    Ages are in ms. Bytes are those of messages that have ended, and those of dead letters; -1 is no limit.
    """
    kept = round(settings.history_retention.total_seconds() * 1000)
    dead = round(settings.dead_retention.total_seconds() * 1000)
    most = settings.history_limit
    # In the order of the states: completed, skipped, dead, cancelled.
    by_state = [kept, most, kept, most, dead, most, kept, most]
    by_bytes = [-1 if one is None else one for one in (settings.history_bytes, settings.dead_bytes)]
    return [round(kept / 1000), *by_state, *by_bytes]
