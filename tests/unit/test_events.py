"""Events as plain data."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.history.events import MAX_TRACEBACK, ErrorInfo, State, StatusEvent, WorkerId

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
EVENTS = st.builds(
    StatusEvent,
    event=TEXT.filter(bool),
    state=st.sampled_from(State),
    time=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - Hypothesis wants naive bounds
        lambda moment: moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
    ),
    actor=st.none() | TEXT.filter(bool),
    attempt=st.none() | st.integers(1, 100),
    subject=st.dictionaries(TEXT, TEXT | st.integers() | st.booleans()),
    text=TEXT,
    duration_ms=st.none() | st.floats(0, 1e9).map(lambda value: round(value, 3)),
    worker=st.builds(WorkerId, host=TEXT, pid=st.integers(1, 10**6)),
    error=st.none() | st.builds(ErrorInfo, type=TEXT, text=TEXT, traceback=TEXT),
)


@given(EVENTS)
def test_an_event_survives_the_way_there_and_back(event: StatusEvent) -> None:
    """What is written is what is read."""
    assert StatusEvent.from_json(event.to_json()) == event


def test_an_event_of_a_later_version_can_be_read() -> None:
    """Fields that this version does not know are passed over."""
    event = StatusEvent(event="a.started", state=State.STARTED)
    line = json.dumps(event.to_dict() | {"invented_later": 1})
    assert StatusEvent.from_json(line).id == event.id


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"event": 1}', b"\xff"])
def test_what_is_no_event_is_a_value_error(line: str | bytes) -> None:
    """A reader can pass over a broken entry."""
    with pytest.raises(ValueError, match=r"."):
        StatusEvent.from_json(line)


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
    assert len(info.text) <= 2_000
    assert len(info.traceback) <= MAX_TRACEBACK


@pytest.mark.parametrize("state", State)
def test_only_started_and_progress_may_be_dropped(state: State) -> None:
    """The events that end an attempt are never dropped."""
    assert state.is_final == (state not in {State.STARTED, State.PROGRESS})
