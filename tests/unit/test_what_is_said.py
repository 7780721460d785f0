"""The words with which pages and commands tell of messages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.cli import status
from worker.cli.output import event_row, message_row
from worker.ground.texts import counted
from worker.history.answers import StoredMessage
from worker.history.events import ErrorInfo, State, StatusEvent

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
NO_TEXT = ErrorInfo("dramatiq.middleware.time_limit.TimeLimitExceeded", "", "")
RETRY = "retry in 45s"


def event(state: State, attempt: int = 1, text: str = "", error: ErrorInfo | None = None) -> StatusEvent:
    return StatusEvent(event=f"merge.{state}", state=state, time=NOW, attempt=attempt, text=text, error=error)


def message(state: str, *events: StatusEvent) -> StoredMessage:
    return StoredMessage(
        id="m",
        number=1,
        state=state,
        since=NOW,
        attempts=2,
        fence=2,
        priority="normal",
        actor="merge",
        queue="cpu",
        subject={},
        payload=b"{}",
        events=events,
        events_left_out=0,
    )


FAILED = event(State.FAILED, text=RETRY, error=ErrorInfo("ValueError", "no\nmore", ""))


@pytest.mark.parametrize(
    ("state", "last", "said"),
    [
        ("completed", event(State.COMPLETED, 2), ""),
        ("completed", event(State.COMPLETED, 2, "80 boxes"), "80 boxes"),
        ("skipped", event(State.SKIPPED, 2, "nothing to do"), "nothing to do"),
        ("cancelled", event(State.CANCELLED, 2), ""),
        ("delayed", FAILED, "ValueError: no"),
        ("dead", FAILED, "ValueError: no"),
    ],
)
def test_what_came_right_says_nothing_of_a_retry_any_more(state: str, last: StatusEvent, said: str) -> None:
    """The text of its end counts, and not that of an attempt before; what has not come right tells its error."""
    found = message(state, FAILED, event(State.STARTED, 2), last)
    assert (found.said_last, message_row(found)[-1]) == (said, said)


def test_an_error_without_a_text_is_its_name_alone() -> None:
    """On every list: no colon with nothing after it."""
    end = event(State.FAILED, error=NO_TEXT)
    found = message("dead", end)
    assert NO_TEXT.line == found.last_error == found.said_last == "TimeLimitExceeded"
    assert event_row(end)[-1] == "TimeLimitExceeded"
    assert FAILED.error is not None
    assert FAILED.error.line == "ValueError: no"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 chunks"), (1, "1 chunk"), (2, "2 chunks"), (10_000, "10,000 chunks")]
)
def test_one_of_a_thing_is_not_told_as_many(number: int, text: str) -> None:
    """Where numbers are put in words."""
    assert counted(number, "chunk") == text


def test_causes_that_are_left_out_are_counted() -> None:
    """The screen has the most frequent, and its title says of how many."""
    many = status._causes({f"Error{number}": 10_000 - number for number in range(10_000)})
    assert (many.title, len(many.rows), many.rows[0]) == ("dead letters, 20 of 10,000 causes", 20, ("Error0", "10000"))
    assert status._causes({"Error": 1}).title == "dead letters"
