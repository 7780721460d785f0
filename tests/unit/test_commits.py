"""What is to be stored of an attempt, put together before it is sent."""

from __future__ import annotations

import dramatiq
import pytest

from worker.broker.commits import Commit, outcome_of
from worker.broker.envelope import Parcel
from worker.broker.taken import Ending, TakenMessage
from worker.history.events import State, StatusEvent
from worker.history.lines import to_line

MESSAGE = TakenMessage(
    dramatiq.Message("q", "a", (), {}, {"unique": "k"}, "m"),
    stream="stream",
    entry="7-0",
    fence=3,
    attempt=2,
    losses=0,
    waited_ms=0.0,
    epoch=1,
    payload=b"{}",
)
PARCEL = Parcel("n", b"{}", "q", "normal", "a")


def event(state: State) -> StatusEvent:
    return StatusEvent(event=f"a.{state}", state=state, message_id="m", actor="a", attempt=2, subject={"x": 1})


STARTED, COMPLETED, FAILED = event(State.STARTED), event(State.COMPLETED), event(State.FAILED)


def test_commits_of_an_attempt_become_one() -> None:
    """Its start, its events in their order, and its end."""
    ending = Ending(COMPLETED)
    commit = Commit(MESSAGE, started=True)
    commit.absorb(Commit(MESSAGE, events=[STARTED]))
    commit.absorb(Commit(MESSAGE, events=[COMPLETED], ending=ending))
    assert commit == Commit(MESSAGE, started=True, events=[STARTED, COMPLETED], ending=ending)
    text, lines = commit.texts()
    fields = text.split("\x1f")
    assert fields[:4] == ["m", "3", "2", "1"]
    assert lines == to_line(STARTED) + to_line(COMPLETED)
    assert fields[4:8] == ["stream", "7-0", "completed", "completed"]
    assert fields[-6:] == ["", "-1", "2", "x=1", "x=1", "0"]


def test_what_comes_after_the_end_does_not_undo_it() -> None:
    """A thread that an attempt left behind may still record something: the message is acknowledged all the same."""
    commit = Commit(MESSAGE, events=[COMPLETED], ending=Ending(COMPLETED))
    commit.absorb(Commit(MESSAGE, events=[STARTED]))
    assert commit.ending == Ending(COMPLETED)
    assert commit.events == [COMPLETED, STARTED]


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (Ending(COMPLETED), "completed"),
        (Ending(FAILED), "dead"),
        (Ending(FAILED, retry=PARCEL), "retry"),
        (Ending(FAILED, retry=PARCEL, given_back=True), "back"),
        (Ending(COMPLETED, rejected=True), "dead"),
    ],
)
def test_what_becomes_of_a_message_follows_from_what_was_put_together(ending: Ending, outcome: str) -> None:
    """A rejection counts most, then a shutdown, then a retry, then the state of the attempt."""
    assert outcome_of(ending) == outcome


def test_only_progress_may_be_dropped_and_only_successes_go_without_events() -> None:
    """What says that an attempt has begun or ended is kept; a failure is told with its error."""
    assert Commit(MESSAGE, events=[STARTED]).may_be_dropped
    assert not Commit(MESSAGE, started=True).may_be_dropped
    assert not Commit(MESSAGE, events=[COMPLETED], ending=Ending(COMPLETED)).may_be_dropped
    assert Commit(MESSAGE, ending=Ending(COMPLETED)).may_lose_events
    assert not Commit(MESSAGE, ending=Ending(COMPLETED, follow_ups=[PARCEL])).may_lose_events
    assert not Commit(MESSAGE, ending=Ending(FAILED)).may_lose_events
