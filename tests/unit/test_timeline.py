"""The timeline of a message, made of its events: attempts with their waits, progress, spans and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from worker.history.answers import StoredMessage
from worker.history.events import ErrorInfo, State, StatusEvent, WorkerId
from worker.history.timeline import attempts_of, requests_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HERE = WorkerId("host", 7)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def event(state: State, attempt: int, seconds: float, own: str = "", **values: Any) -> StatusEvent:
    """An event of an attempt; `own` is what its id has after the attempt's number."""
    own = own or (".end" if state.is_final else "")
    return StatusEvent(
        event=f"a.{state}",
        state=state,
        id=f"m:{attempt}{own}",
        time=at(seconds),
        attempt=attempt,
        **{"worker": HERE} | values,
    )


def message(*events: StatusEvent, state: str = "completed", attempts: int | None = None) -> StoredMessage:
    return StoredMessage(
        id="m",
        number=0,
        state=state,
        since=at(100),
        attempts=max((one.attempt or 0 for one in events), default=0) if attempts is None else attempts,
        fence=1,
        priority="normal",
        actor="a",
        queue="q",
        subject={},
        payload=b"{}",
        events=events,
        events_left_out=0,
    )


def test_an_attempt_is_told_by_its_start_and_its_end() -> None:
    """When, where, how long it waited and took, and how it ended."""
    start = event(State.STARTED, 1, 0, queued_ms=5.0)
    error = ErrorInfo("E", "no", "trace")
    end = event(
        State.FAILED, 1, 2, duration_ms=2_000.0, blocked_ms=30.0, blocked_at="f", text="retry in 1s", error=error
    )
    (found,) = attempts_of(message(start, end, state="delayed"))
    assert (found.number, found.state, found.started, found.ended) == (1, "failed", at(0), at(2))
    assert (found.queued_ms, found.duration_ms, found.blocked_ms, found.blocked_at) == (5.0, 2_000.0, 30.0, "f")
    assert (found.worker, found.text, found.error, found.progress) == (HERE, "retry in 1s", error, None)
    assert found.events == (start, end)


def test_attempts_follow_each_other() -> None:
    """One that was lost, one that was cancelled, one that completed."""
    told = []
    for number, state in enumerate((State.LOST, State.CANCELLED, State.COMPLETED), 1):
        told += [event(State.STARTED, number, 10 * number), event(state, number, 10 * number + 1)]
    found = attempts_of(message(*told))
    assert [(one.number, one.state) for one in found] == [(1, "lost"), (2, "cancelled"), (3, "completed")]


def test_an_attempt_without_its_start_began_before_its_end_by_its_duration() -> None:
    """STARTED may have been dropped, or have had to go."""
    (found,) = attempts_of(message(event(State.COMPLETED, 3, 60, duration_ms=1_500.0, queued_ms=7.0)))
    assert (found.number, found.started, found.queued_ms) == (3, at(58.5), 7.0)
    (found,) = attempts_of(message(event(State.LOST, 1, 60)))
    assert (found.started, found.ended) == (None, at(60))


def test_a_message_that_runs_has_an_attempt_that_runs() -> None:
    """Also before its STARTED is stored: since the message is in that state."""
    (found,) = attempts_of(message(event(State.STARTED, 1, 3), state="running"))
    assert (found.state, found.started, found.ended) == ("running", at(3), None)
    one, two = attempts_of(message(event(State.STARTED, 1, 0), event(State.FAILED, 1, 1), state="running", attempts=2))
    assert (one.state, two.state, two.started, two.events) == ("failed", "running", at(100), ())


def test_a_message_that_waits_has_no_attempts() -> None:
    """Whether it is new, or was cancelled before it ran."""
    assert attempts_of(message(state="queued")) == attempts_of(message(state="cancelled")) == ()


def test_progress_is_the_newest_of_the_attempt_and_not_of_its_spans() -> None:
    """Spans have their own, and are among the events."""
    events = [
        event(State.STARTED, 1, 0),
        event(State.PROGRESS, 1, 1, ".1", done=1.0, total=9.0),
        event(State.STARTED, 1, 2, "/1"),
        event(State.PROGRESS, 1, 3, "/1.1", done=8.0, total=9.0),
        event(State.FAILED, 1, 4, "/1.end", duration_ms=2.0),
        event(State.PROGRESS, 1, 5, ".2", done=2.0, total=9.0),
        event(State.COMPLETED, 1, 6),
    ]
    (found,) = attempts_of(message(*events))
    assert found.progress is events[5]
    assert (found.state, found.duration_ms, found.ended) == ("completed", None, at(6))
    assert found.events == tuple(events)


def test_an_id_with_a_slash_makes_no_span_of_an_attempt() -> None:
    """People choose the ids of messages."""
    start = event(State.STARTED, 1, 0)
    start.id = "a/b:c:1"
    (found,) = attempts_of(message(start, state="running"))
    assert found.started == at(0)


def test_what_people_asked_for_is_told_apart_from_attempts() -> None:
    """It is no attempt, whether or not one had begun."""
    asked = [
        event(State.REQUESTED, 0, 1, ".run_now.1", text="run_now", by="ann"),
        event(State.REQUESTED, 1, 5, ".cancel.5", text="cancel", by="bob"),
    ]
    asked[0].attempt = None
    told = message(asked[0], event(State.STARTED, 1, 4), asked[1], event(State.CANCELLED, 1, 6))
    assert requests_of(told) == tuple(asked)
    (found,) = attempts_of(told)
    assert [one.state for one in found.events] == [State.STARTED, State.CANCELLED]
