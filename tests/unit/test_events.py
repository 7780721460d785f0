"""Events as plain data."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from worker.ground.json_values import to_json
from worker.history.as_json import Event, Shown
from worker.history.events import TAKEN_TEXT, TAKEN_TRACEBACK, ErrorInfo, State, StatusEvent, WorkerId


def test_an_event_as_json_has_all_keys() -> None:
    """Null where there is nothing; a time is in UTC, with milliseconds and `Z`."""
    time = datetime(2025, 1, 2, 3, 4, 5, 678_900, UTC)
    error = ErrorInfo("ValueError", "no", "Traceback …")
    event = StatusEvent(
        event="merge.failed",
        state=State.FAILED,
        id="m:1.end",
        time=time,
        actor="merge",
        subject={"conversation_id": 42},
        duration_ms=1.23456,
        worker=WorkerId("host", 7),
        error=error,
    )
    found = to_json(Event.of(event, Shown(tracebacks=True)))
    assert json.loads(json.dumps(found)) == found
    absent = dict.fromkeys(["queue", "message_id", "attempt", "queued_ms", "blocked_ms", "blocked_at"])
    absent |= dict.fromkeys(["longest_block_ms", "longest_block_from_ms"])
    assert found == absent | dict.fromkeys(["parent", "by", "done", "total"]) | {
        "event": "merge.failed",
        "state": "failed",
        "id": "m:1.end",
        "time": "2025-01-02T03:04:05.678Z",
        "text": "",
        "actor": "merge",
        "subject": {"conversation_id": 42},
        "duration_ms": 1.235,
        "worker": {"host": "host", "pid": 7},
        "error": {"type": "ValueError", "text": "no", "traceback": "Traceback …"},
    }


def test_an_error_is_described_in_bounded_size_with_its_cause() -> None:
    """The end of the traceback is kept, which names the place, and what caused it."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("x" * 100_000) from error
    except RuntimeError as error:
        info = ErrorInfo.of(error)
    assert info.type == "RuntimeError"
    assert len(info.text) <= TAKEN_TEXT
    assert len(info.traceback) <= TAKEN_TRACEBACK


@pytest.mark.parametrize("state", State)
def test_what_ends_an_attempt_is_final_and_is_never_dropped(state: State) -> None:
    """A start, progress, and what a person asks for end none."""
    assert state.is_final == (state not in {State.STARTED, State.PROGRESS, State.REQUESTED, State.WAITING})
