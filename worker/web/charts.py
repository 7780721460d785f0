"""The numbers for the overview's tiles and charts: all minutes of the last hour, also those without events.

It has only numbers, without pages or colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from worker.history.answers import QueueInfo, Window
from worker.history.events import State
from worker.history.states import FAILURES, OPEN, WAITS, ended_work, error_share

MINUTES = 60
FEWEST = 15
"""The fewest minutes that are drawn, if earlier ones have no data."""

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Pace:
    """The present pace of all actors.

    Attributes:
        per_second: The number of ended attempts per second, in the last minute.
        attempts: The number of attempts that ended in the last hour, without those that were snoozed.
        error_share: The share of these that failed or were lost.
        p50_ms: Milliseconds below which half of the attempts stayed, in the newest minute with attempts.
        p95_ms: Milliseconds below which 95 % of them stayed.
    """

    per_second: float
    attempts: int
    error_share: float
    p50_ms: float | None
    p95_ms: float | None


def pace(found: Sequence[Window], now: datetime) -> Pace:
    """The present pace, computed from the windows of the last hour."""
    ended = sum((Counter(one.ended) for one in found), Counter[str]())
    newest = next((one.duration for one in reversed(found) if one.duration is not None), None)
    return Pace(
        per_second=_in_the_last_minute(found, now) / _MINUTE.total_seconds(),
        attempts=ended_work(ended),
        error_share=error_share(ended),
        p50_ms=newest.p50_ms if newest is not None else None,
        p95_ms=newest.p95_ms if newest is not None else None,
    )


def charts(found: Sequence[Window], waiting: Iterable[QueueInfo], now: datetime) -> Mapping[str, Any]:
    """The data for the charts' script, by chart."""
    minutes = _minutes(found, now)
    starts = [start.timestamp() for start, _ in minutes]

    def ended(*states: str) -> list[int]:
        return [sum(one.ended.get(state, 0) for state in states) if one else 0 for _, one in minutes]

    def takes(name: str) -> list[float | None]:
        return [round(getattr(one.duration, name), 1) if one and one.duration else None for _, one in minutes]

    queues = list(waiting)
    return {
        "attempts": {
            "kind": "bars",
            "unit": "count",
            "x": starts,
            "series": [
                {"name": "completed", "values": ended(State.COMPLETED, State.SKIPPED)},
                {"name": "failed", "values": ended(*FAILURES)},
                {"name": "snoozed", "values": ended(*WAITS)},
                {"name": "cancelled", "values": ended(State.CANCELLED)},
            ],
        },
        "latency": {
            "kind": "lines",
            "unit": "ms",
            "x": starts,
            "series": [
                {"name": "p50", "values": takes("p50_ms")},
                {"name": "p95", "values": takes("p95_ms")},
            ],
        },
        "depth": {
            "at": round(now.timestamp(), 1),
            "values": {state.value: sum(getattr(one, state) for one in queues) for state in OPEN},
        },
    }


def _minutes(found: Sequence[Window], now: datetime) -> list[tuple[datetime, Window | None]]:
    """The minutes of the last hour, from the first with data, oldest first; the last minute is still running."""
    by_start = {_floor(one.start): one for one in found}
    last = _floor(now)
    first = min((start for start, one in by_start.items() if any(one.ended.values())), default=last)
    known = 1 + (last - first) // _MINUTE
    starts = [last - count * _MINUTE for count in reversed(range(min(max(known, FEWEST), MINUTES)))]
    return [(start, by_start.get(start)) for start in starts]


def _floor(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _in_the_last_minute(found: Sequence[Window], now: datetime) -> float:
    """The ends in the running minute, and a share of those in the minute before, to make a whole minute."""
    by_start = {_floor(one.start): _total(one) for one in found}
    this = _floor(now)
    rest = 1 - (now - this) / _MINUTE
    return by_start.get(this, 0) + rest * by_start.get(this - _MINUTE, 0)


def _total(window: Window) -> int:
    return sum(window.ended.values())
