"""The timeline's bars: where they begin, how wide they are, and what is drawn shorter."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.history.answers import StoredMessage
from worker.history.events import State, StatusEvent
from worker.web.bars import draw

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def started(number: int, seconds: float, waited_ms: float = 0) -> StatusEvent:
    return StatusEvent(
        event="a.started",
        state=State.STARTED,
        id=f"m:{number}",
        time=at(seconds),
        message_id="m",
        attempt=number,
        queued_ms=waited_ms,
    )


def ended(number: int, seconds: float, took_ms: float, state: State = State.FAILED, **more: float) -> StatusEvent:
    return StatusEvent(
        event=f"a.{state}",
        state=state,
        id=f"m:{number}.end",
        time=at(seconds),
        message_id="m",
        attempt=number,
        duration_ms=took_ms,
        parent=f"m:{number}",
        blocked_ms=more.get("blocked_ms"),
        longest_block_ms=more.get("longest_block_ms"),
        longest_block_from_ms=more.get("longest_block_from_ms"),
    )


def span(number: int, name: str, state: State, seconds: float) -> StatusEvent:
    own = f"m:{number}/1"
    return StatusEvent(
        event=f"{name}.{state}",
        state=state,
        id=own if state is State.STARTED else f"{own}.end",
        time=at(seconds),
        message_id="m",
        attempt=number,
        parent=f"m:{number}" if state is State.STARTED else own,
    )


def message(state: str, *events: StatusEvent, since: float = 0, enqueued: float = 0) -> StoredMessage:
    return StoredMessage(
        id="m",
        number=1,
        state=state,
        since=at(since),
        attempts=max((event.attempt or 0 for event in events), default=0),
        fence=1,
        priority="normal",
        actor="a",
        queue="default",
        subject={},
        payload=json.dumps({"message_timestamp": at(enqueued).timestamp() * 1000}).encode(),
        events=events,
        events_left_out=0,
    )


def test_wait_and_run_share_the_axis_by_their_length() -> None:
    """One second of four is a quarter of the width, and the next bar begins where it ends."""
    found = draw(message("completed", started(1, 1, 1_000), ended(1, 4, 3_000, State.COMPLETED)), at(9))
    [row] = found.rows
    assert row.wait is not None
    assert (row.wait.x, row.wait.width) == (0, 25)
    assert (row.run.x, row.run.width) == (25, 75)
    assert not found.cut
    assert [tick.ms for tick in found.ticks] == [0, 1_000, 4_000]


def test_a_long_gap_is_drawn_shorter_and_says_so() -> None:
    """An hour between two attempts of a second leaves both of them most of the width."""
    events = started(1, 0), ended(1, 1, 1_000), started(2, 3_601), ended(2, 3_602, 1_000, State.COMPLETED)
    found = draw(message("completed", *events), at(9_000))
    gap = found.rows[0].gap
    assert gap is not None
    assert gap.cut
    assert gap.ms == pytest.approx(3_600_000)
    assert gap.width < 15
    assert found.cut
    assert found.rows[1].run.width > 40
    assert found.rows[1].run.x + found.rows[1].run.width == pytest.approx(100)


def test_what_is_very_short_can_be_seen() -> None:
    """An attempt of a millisecond before one of ten minutes has some width."""
    events = started(1, 0), ended(1, 0.001, 1), started(2, 1), ended(2, 601, 600_000, State.COMPLETED)
    found = draw(message("completed", *events), at(900))
    assert found.rows[0].run.width > 0.5


def test_blocked_time_is_a_part_of_the_run() -> None:
    """Drawn where the longest block was and as long, never beyond the run; not at all if that is not known."""
    block: dict[str, Any] = {"blocked_ms": 1_200, "longest_block_ms": 1_000, "longest_block_from_ms": 500}
    [row] = draw(message("completed", started(1, 0), ended(1, 2, 2_000, **block)), at(9)).rows
    assert row.blocked is not None
    assert (row.blocked.x, row.blocked.width, row.blocked.ms) == (25, 50, 1_000)
    block["longest_block_ms"] = 9_000
    [row] = draw(message("completed", started(1, 0), ended(1, 2, 2_000, **block)), at(9)).rows
    assert row.blocked is not None
    assert (row.blocked.x, row.blocked.width) == (25, 75)
    [row] = draw(message("completed", started(1, 0), ended(1, 2, 2_000, blocked_ms=9_000)), at(9)).rows
    assert row.blocked is None


def test_what_runs_reaches_until_now() -> None:
    """The bar of an attempt without an end grows with the time, as do its spans."""
    running = message("running", started(1, 0), span(1, "fetch", State.STARTED, 4))
    [row] = draw(running, at(8)).rows
    assert row.run.ms == 8_000
    [part] = row.spans
    assert (part.name, part.state, part.bar.x, part.bar.width) == ("fetch", "running", 50, 50)


def test_a_span_that_ended_has_its_own_bar() -> None:
    """From its start to its end, in the state in which it ended."""
    events = span(1, "fetch", State.STARTED, 1), span(1, "fetch", State.FAILED, 3)
    [row] = draw(message("dead", started(1, 0), *events, ended(1, 4, 4_000)), at(9)).rows
    [part] = row.spans
    assert (part.state, part.bar.x, part.bar.width, part.depth) == ("failed", 25, 50, 1)


def test_a_message_that_waits_shows_what_for() -> None:
    """One that is queued waits until now, one that is delayed until it is due, one that is neither for nothing."""
    queued = draw(message("queued"), at(5))
    assert queued.pending is not None
    assert queued.pending.ms == 5_000
    delayed = draw(message("delayed", started(1, 0), ended(1, 1, 1_000), since=31), at(5))
    assert delayed.pending is not None
    assert delayed.pending.ms == 30_000
    assert draw(message("completed", started(1, 0), ended(1, 1, 1_000)), at(5)).pending is None


def test_a_message_enqueued_for_later_shows_the_delay() -> None:
    """Before its first attempt, apart from its wait in the queue."""
    found = draw(message("completed", started(1, 60, 500), ended(1, 61, 1_000), enqueued=0), at(90))
    assert found.before is not None
    assert found.before.ms == pytest.approx(59_500)
    assert found.rows[0].wait is not None
    assert found.rows[0].wait.ms == 500


def test_clocks_that_differ_draw_nothing_backwards() -> None:
    """An end before its start, or an attempt before the enqueueing, has a bar of no negative width."""
    found = draw(message("completed", started(1, -5), ended(1, -6, 10), enqueued=0), at(-20))
    assert all(row.run.width >= 0 and 0 <= row.run.x <= 100 for row in found.rows)
