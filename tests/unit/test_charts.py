"""The overview's numbers: what is drawn of the last hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from worker.history.answers import QueueInfo, Window
from worker.history.histogram import Percentiles
from worker.web.charts import FEWEST, MINUTES, charts, pace

NOW = datetime(2026, 11, 21, 9, 30, 15, tzinfo=UTC)


def window(minutes_ago: int, p95: float | None = None, **ended: int) -> Window:
    return Window(
        start=NOW.replace(second=0) - timedelta(minutes=minutes_ago),
        seconds=60.0,
        ended=ended,
        duration=Percentiles(1, 1.0, p95, p95) if p95 is not None else None,
        wait=None,
    )


def test_the_throughput_is_that_of_a_whole_minute() -> None:
    """A quarter of the minute has passed: three quarters of the one before count with it."""
    found = pace([window(1, completed=400), window(0, completed=60)], NOW)
    assert found.per_second == (60 + 300) / 60


def test_nothing_is_told_of_nothing() -> None:
    """Neither a share nor a time."""
    found = pace([], NOW)
    assert (found.per_second, found.attempts, found.error_share, found.p95_ms) == (0, 0, 0, None)


def test_errors_are_a_share_of_all_that_ended() -> None:
    """What failed or was lost, not what was cancelled or skipped."""
    found = pace([window(5, 7.0, completed=5, failed=2, lost=1), window(3, skipped=1, cancelled=1)], NOW)
    assert (found.attempts, found.error_share, found.p95_ms) == (10, 0.3, 7.0)


def test_attempts_that_only_waited_are_drawn_apart() -> None:
    """They are neither errors nor part of what errors are a share of."""
    windows = [window(0, completed=3, failed=1, snoozed=96)]
    found = pace(windows, NOW)
    assert (found.attempts, found.error_share) == (4, 0.25)
    drawn = {one["name"]: one["values"][-1] for one in charts(windows, [], NOW)["attempts"]["series"]}
    assert drawn == {"completed": 3, "failed": 1, "snoozed": 96, "cancelled": 0}


def test_minutes_without_events_are_drawn_too() -> None:
    """From the first of which something is known; a quarter of an hour at least, an hour at most."""
    young = charts([window(2, 4.0, completed=3), window(0)], [], NOW)["attempts"]
    assert len(young["x"]) == FEWEST
    assert young["series"][0]["values"][-3:] == [3, 0, 0]
    old = charts([window(count, completed=1) for count in reversed(range(90))], [], NOW)["latency"]
    assert len(old["x"]) == MINUTES
    assert old["series"][1]["values"] == [None] * MINUTES


def test_depths_are_added_up_over_the_queues() -> None:
    """What waits, is delayed and runs, at a moment."""
    depths = [
        QueueInfo(name=name, queued=1, delayed=2, running=3, oldest_seconds=None, pause=None)
        for name in ("one", "other")
    ]
    found = charts([], depths, NOW)["depth"]
    assert found == {"at": NOW.timestamp(), "values": {"queued": 2, "delayed": 4, "running": 6}}
