"""What filters let through, what they say they are, and how they refuse what they cannot read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from worker.errors import ConfigurationError
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.filters import EventFilter, MessageFilter, read_event_filter, read_message_filter
from worker.history.states import MARKS

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_filter_without_conditions_is_that_for_everything() -> None:
    """Empty texts, as forms and query strings have them, are no conditions."""
    empty = {"actor": "", "queue": "", "error": "", "since": "", "until": ""}
    assert read_message_filter({}) == read_message_filter(empty) == MessageFilter()
    assert read_event_filter({"message_id": "", "state": "", **empty}) == EventFilter()
    assert MessageFilter().describe() == "everything"


def test_a_filter_says_what_it_is_for() -> None:
    """Everything that is set, for the audit log."""
    wanted = MessageFilter(
        states=("dead",), actor="a", queue="q", error="E", subject={"n": "1"}, since=NOON, until=NOON
    )
    assert wanted.describe() == (
        "state=dead actor=a queue=q subject n=1 error=E since=2026-11-21T12:00:00+00:00 until=2026-11-21T12:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"state": ["ded"]}, "state ded: there are queued, delayed"),
        ({"subject": ["42"]}, "subject 42: write key=value"),
        ({"subject": ["=42"]}, "subject =42: write key=value"),
        ({"since": "tomorrow"}, "since tomorrow: write how long ago, such as 2h"),
        ({"since": "90"}, "since 90: write how long ago, such as 2h"),
        ({"actor": "x" * 1_001}, "actor x.*: it is too long: at most 1,000 characters"),
        ({"subject": [f"{n}=1" for n in range(11)]}, "subject: 11 were given: at most 10"),
        ({"colour": "red"}, "colour: there is no such filter; there are state, actor"),
        ({"until": "99999999999999d"}, "until .*: write how long ago"),
        ({"state": ["\x1b[31m"]}, r"state \\x1b\[31m: there"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_remedy(values: dict[str, Any], says: str) -> None:
    """On one line, without anything a terminal would obey."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_message_filter(values)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_an_event_without_a_subject_has_no_value_of_it() -> None:
    """Not even the word `None`; a subject that is null has that one."""
    named, null, other = (
        StatusEvent(event="a.started", state=State.STARTED, subject=subject) for subject in ({"n": 1}, {"k": None}, {})
    )
    wanted = EventFilter(subject={"k": "None"})
    assert [wanted.matches(event) for event in (named, null, other)] == [False, True, False]


def test_states_of_events_and_of_messages_are_not_mixed_up() -> None:
    """A message is never `started`, and an attempt never `dead`."""
    with pytest.raises(ConfigurationError, match="there are started"):
        read_event_filter({"state": "dead"})
    with pytest.raises(ConfigurationError, match="there are queued"):
        MessageFilter(states=("started",))
    for state in MARKS:
        assert MessageFilter(states=(state,)).states == (state,)


def test_an_event_matches_what_it_is_about_and_nothing_else() -> None:
    """By each condition, alone and together; numbers and texts are the same."""
    event = StatusEvent(
        event="merge.failed",
        state=State.FAILED,
        time=NOON,
        actor="merge",
        queue="cpu",
        message_id="m",
        subject={"n": 42, "of": None},
        error=ErrorInfo("a.b.Broken", "", ""),
    )
    hit: dict[str, Any] = {
        "message_id": "m",
        "actor": "merge",
        "queue": "cpu",
        "state": State.FAILED,
        "error": "Broken",
        "subject": {"n": "42"},
        "since": NOON,
        "until": NOON.astimezone(timezone(timedelta(hours=5))),
    }
    miss: dict[str, Any] = {
        "message_id": "n",
        "actor": "Merge",
        "queue": "",
        "state": State.LOST,
        "error": "roken",
        "subject": {"n": "43"},
        "since": NOON + timedelta(milliseconds=1),
        "until": NOON - timedelta(milliseconds=1),
    }
    assert EventFilter(**hit).matches(event)
    for name, value in hit.items():
        assert EventFilter(**{name: value}).matches(event), name
        assert not EventFilter(**{**hit, name: miss[name]}).matches(event), name
    for error in ("b.Broken", "a.b.Broken"):
        assert EventFilter(error=error).matches(event)
    assert not EventFilter(error="Broken").matches(StatusEvent(event="a.completed", state=State.COMPLETED))
