"""Events as lines: how they are kept in the record of their message."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.history.events import MAX_TEXT, MAX_TRACEBACK, ErrorInfo, State, StatusEvent, WorkerId
from worker.history.filters import EventFilter
from worker.history.histogram import bucket
from worker.history.lines import from_line, record_id, subject_names, to_line

# Lone surrogates too: Python makes them of file names that are no UTF-8.
TEXT = st.text(st.characters(), max_size=50)
NAME = st.text("abc_.-:/\N{SNOWMAN}", min_size=1, max_size=10)
MILLISECONDS = st.none() | st.floats(0, 1e9).map(lambda value: round(value, 3))
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - Hypothesis wants naive bounds
    lambda moment: moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
)
SPANS = st.sampled_from(["", "/1", "/23"])


@st.composite
def events(draw: st.DrawFn) -> StatusEvent:
    """An event of an attempt, or of a run outside a worker."""
    state = draw(st.sampled_from(State))
    prefix, run = draw(NAME), draw(st.uuids()).hex
    attempt = draw(st.none() | st.integers(1, 100))
    span = f"{run}:{attempt or 0}{draw(SPANS)}"
    own = {State.STARTED: "", State.PROGRESS: f".{draw(st.integers(1, 9))}"}.get(state, ".end")
    about = {"message_id": run, "actor": draw(st.just(prefix) | NAME), "queue": draw(NAME), "attempt": attempt}
    if attempt is None:
        about = dict.fromkeys(about)
    blocked = draw(MILLISECONDS)
    done = draw(st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
    longest = None if blocked is None else draw(MILLISECONDS)
    return StatusEvent(
        event=f"{prefix}.{state}",
        state=state,
        id=span + own,
        parent=draw(_parents(f"{run}:{attempt or 0}", span)) if state is State.STARTED else span,
        time=draw(TIMES),
        subject=draw(st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.none())),
        text=draw(TEXT),
        duration_ms=draw(MILLISECONDS),
        queued_ms=draw(MILLISECONDS),
        blocked_ms=blocked,
        blocked_at=None if blocked is None else draw(st.none() | TEXT),
        longest_block_ms=longest,
        longest_block_from_ms=longest,
        worker=WorkerId(draw(st.text("abc.-", min_size=1)), draw(st.integers(1, 10**6))),
        error=draw(st.none() | st.builds(ErrorInfo, type=TEXT, text=TEXT, traceback=TEXT)),
        done=done,
        total=None if done is None else draw(st.none() | st.integers()),
        **about,  # type: ignore[arg-type]
    )


def _parents(attempt: str, span: str) -> st.SearchStrategy[str | None]:
    """In what a span began: an attempt in nothing, a span in its attempt or in another span."""
    return st.none() if span == attempt else st.sampled_from([attempt, f"{attempt}/7"])


def read(line: str | bytes, event: StatusEvent) -> StatusEvent:
    return from_line(line, record_id(event), event.actor or "", event.queue or "")


@given(events())
def test_an_event_survives_the_way_there_and_back(event: StatusEvent) -> None:
    """What is written is what is read, in one line that any server takes."""
    line = to_line(event)
    assert line.index("\n") == len(line) - 1
    assert read(line.encode(), event) == event


@given(events())
def test_the_scripts_find_state_and_error_type_by_their_places(event: StatusEvent) -> None:
    """The state comes first, and an error begins with its type."""
    line = to_line(event)
    assert line.startswith(f'{{"s":"{event.state}"')
    if event.error is not None:
        assert f',"r":[{json.dumps(event.error.type, ensure_ascii=False)},'.encode("utf-8", "backslashreplace") in (
            line.encode()
        )


def test_what_an_event_of_an_ordinary_attempt_says_anyway_is_not_written() -> None:
    """Most of the history is such events: each byte is stored for every message."""
    started = StatusEvent(
        event="a.started",
        state=State.STARTED,
        id="m:1",
        message_id="m",
        actor="a",
        queue="q",
        attempt=1,
        worker=WorkerId("h", 1),
    )
    ended = replace(started, event="a.completed", state=State.COMPLETED, id="m:1.end", parent="m:1", duration_ms=0.5)
    for event, fields in ((started, "stwn"), (ended, "stwnd")):
        assert set(json.loads(to_line(event))) == set(fields)
        assert read(to_line(event), event).id == event.id


def test_an_event_of_a_later_version_can_be_read() -> None:
    """Names that this version does not know are passed over."""
    event = StatusEvent(event="a.started", state=State.STARTED, id="m:0")
    line = json.dumps(json.loads(to_line(event)) | {"invented_later": 1})
    assert read(line, event).id == event.id


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"s": "started"}', '{"s": "invented", "t": 0}', b"\xff"])
def test_what_is_no_event_is_a_value_error(line: str | bytes) -> None:
    """A reader can pass over a broken line."""
    with pytest.raises(ValueError, match=r"."):
        from_line(line, "m", "a", "q")


@given(TEXT, TEXT)
def test_a_subject_is_found_by_one_word_whatever_it_holds(name: str, value: str) -> None:
    """Without what separates the fields of a record, and such as any server takes."""
    [word] = subject_names({name: value})
    assert not set(word) & set("\t\n\x1f")
    assert word.encode()


def test_durations_fall_into_buckets_a_tenth_apart() -> None:
    """From a tenth of a millisecond, so that what took twice as long is told apart."""
    assert [bucket(ms) for ms in (None, 0.0, 0.1)] == ["", "0", "0"]
    durations = [0.11 * 1.1**step for step in range(200)]
    assert [int(bucket(ms * 0.999)) for ms in durations] == list(range(1, 201))


def test_a_line_keeps_a_bounded_part_of_each_text_and_no_half_of_a_secret() -> None:
    """The begin of a text, the end of a traceback; secrets are masked before the bound cuts them in two."""
    url = "redis://me:hunter2@db/0"
    start = "x" * (MAX_TEXT - 15) + " " + url  # the bound lies within the password
    text, trace = start + "y" * MAX_TEXT, "z" * MAX_TRACEBACK + url + " " + "w" * (MAX_TRACEBACK - 8)
    event = StatusEvent(
        event="a.failed", state=State.FAILED, id="m:1.end", message_id="m", actor="a", queue="q", attempt=1,
        subject={"source": url, "number": 5}, text=text, error=ErrorInfo("ValueError", text, trace),
    )  # fmt: skip
    found = read(to_line(event), event)
    assert found.error is not None
    assert "hunter2" not in repr(found)
    assert "nter2" not in repr(found)
    assert len(found.text) == len(found.error.text) == MAX_TEXT
    assert len(found.error.traceback) == MAX_TRACEBACK
    assert found.error.traceback.endswith("w")
    assert found.subject == {"source": "redis://me:***@db/0", "number": 5}
    assert subject_names(event.subject) == ["source=redis://me:***@db/0", "number=5"]
    assert EventFilter(subject={"source": url}).matches(found)
