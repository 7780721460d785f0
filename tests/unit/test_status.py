"""What a status context records."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator

import pytest

from worker import NoContentFound, ProcessingStatusContext
from worker.attempts import spans as spans_module
from worker.errors import RetryLater, Unchanged
from worker.history.events import State
from worker.testing import recorded_events


def test_a_context_records_started_and_completed() -> None:
    """With name, subject, text, times and parent."""
    with recorded_events() as events:
        with ProcessingStatusContext("merge", "three chunks", conversation_id="c1") as status:
            status.set_exit_message("merged")
    started, completed = events
    assert [started.event, completed.event] == ["merge.started", "merge.completed"]
    assert [started.text, completed.text] == ["three chunks", "merged"]
    assert started.subject == completed.subject == {"conversation_id": "c1"}
    assert completed.parent == started.id
    assert completed.duration_ms is not None
    assert started.message_id is None
    assert started.attempt is None
    assert started.time <= completed.time
    assert started.worker.pid > 0


@pytest.mark.parametrize("error", [NoContentFound("nothing there"), Unchanged()])
def test_no_content_found_is_skipped_and_swallowed(error: NoContentFound) -> None:
    """Its text says why; subclasses count."""
    with recorded_events() as events, ProcessingStatusContext("merge"):
        raise error
    assert events.states() == ["started", "skipped"]
    assert list(events)[-1].text == str(error)
    assert list(events)[-1].error is None


def test_another_error_is_failed_and_passes_on() -> None:
    """With type, text and traceback."""
    with recorded_events() as events:
        with pytest.raises(ZeroDivisionError), ProcessingStatusContext("merge"):
            _ = 1 // 0
    assert events.states() == ["started", "failed"]
    error = list(events)[-1].error
    assert error is not None
    assert error.type == "ZeroDivisionError"
    assert "1 // 0" in error.traceback


def test_outside_a_worker_nobody_comes_back_later() -> None:
    """A run that asks for a later time is FAILED; a span inside it is SNOOZED."""
    with recorded_events() as events:
        with pytest.raises(RetryLater), ProcessingStatusContext("merge"), ProcessingStatusContext("fetch"):
            raise RetryLater(30, "busy")
    assert [event.event for event in events][2:] == ["fetch.snoozed", "merge.failed"]


class Silent(ValueError):
    """An error whose own text fails, as of a service with a slip in it."""

    def __str__(self) -> str:
        raise TypeError("no text")


class SilentSkip(Silent, NoContentFound):
    """The same, of a clean skip."""


def test_an_error_that_cannot_say_what_it_is_passes_on_as_itself() -> None:
    """It is told as far as it can be."""
    with recorded_events() as events:
        with pytest.raises(Silent), ProcessingStatusContext("merge"):
            raise Silent
        with ProcessingStatusContext("merge"):
            raise SilentSkip
    assert events.states() == ["started", "failed", "started", "skipped"]
    error = list(events)[1].error
    assert error is not None
    assert (error.type.rpartition(".")[2], error.text) == ("Silent", "its text cannot be read: TypeError")


def test_a_context_may_be_left_in_another_context_of_variables() -> None:
    """As that of a dependency whose two halves run in a thread pool."""
    with recorded_events() as events:
        status = ProcessingStatusContext("merge")
        contextvars.copy_context().run(status.__enter__)
        contextvars.copy_context().run(status.__exit__, None, None, None)
    assert events.states() == ["started", "completed"]


def test_a_context_in_a_generator_that_its_loop_closes_is_ended() -> None:
    """Whoever asked for more has gone away."""
    complaints = []

    async def numbers() -> AsyncIterator[int]:
        async with ProcessingStatusContext("stream"):
            yield 1
            yield 2

    async def look_at_one() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        async for _ in numbers():
            break
        gc.collect()
        await asyncio.sleep(0.01)

    with recorded_events() as events:
        asyncio.run(look_at_one())
    assert len(events.states()) == 2
    assert complaints == []


def test_progress_is_recorded_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of how much."""
    monkeypatch.setattr(spans_module, "PROGRESS_EVERY", 0.0)
    with recorded_events() as events, ProcessingStatusContext("merge") as status:
        status.progress(1, 3, "first")
    assert events.states() == ["started", "progress", "completed"]
    progress = list(events)[1]
    assert (progress.event, progress.done, progress.total, progress.text) == ("merge.progress", 1, 3, "first")


def test_progress_is_recorded_once_a_second_however_often_it_is_reported() -> None:
    """A quick run has none: a loop may report each of its steps."""
    with recorded_events() as events, ProcessingStatusContext("merge") as status:
        for step in range(1_000):
            status.progress(step, 1_000)
    assert events.states() == ["started", "completed"]


def test_an_inner_context_is_a_span_that_lets_every_error_pass() -> None:
    """Only the outermost context swallows: what follows an inner one must not run on nothing."""
    with recorded_events() as events:
        with ProcessingStatusContext("outer"), ProcessingStatusContext("inner"):
            raise NoContentFound("empty")
    names = [event.event for event in events]
    assert names == ["outer.started", "inner.started", "inner.skipped", "outer.skipped"]
    outer, inner, *_ = events
    assert inner.parent == outer.id


def test_the_ids_of_events_tell_to_what_each_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a run begin with the run's, those of a span with the span's; none is given twice."""
    monkeypatch.setattr(spans_module, "PROGRESS_EVERY", 0.0)
    with recorded_events() as events:
        with ProcessingStatusContext("outer") as outer:
            with ProcessingStatusContext("first"), ProcessingStatusContext("within"):
                pass
            with ProcessingStatusContext("second") as second:
                second.progress(1)
            outer.progress(1)
            outer.progress(2)
    run = next(iter(events)).id.removesuffix(":0")
    assert [(event.event, event.id.removeprefix(run)) for event in events] == [
        ("outer.started", ":0"),
        ("first.started", ":0/1"),
        ("within.started", ":0/2"),
        ("within.completed", ":0/2.end"),
        ("first.completed", ":0/1.end"),
        ("second.started", ":0/3"),
        ("second.progress", ":0/3.1"),
        ("second.completed", ":0/3.end"),
        ("outer.progress", ":0.1"),
        ("outer.progress", ":0.2"),
        ("outer.completed", ":0.end"),
    ]


async def test_a_context_works_in_async_code() -> None:
    """As `async with`, also across tasks."""
    with recorded_events() as events:
        async with ProcessingStatusContext("outer"):
            await asyncio.gather(_span("a"), _span("b"))
    outer = next(iter(events))
    assert {event.parent for event in events if event.event in ("a.started", "b.started")} == {outer.id}
    assert events.states().count(State.COMPLETED) == 3


async def _span(name: str) -> None:
    async with ProcessingStatusContext(name):
        await asyncio.sleep(0)


async def test_a_cancelled_context_is_cancelled() -> None:
    """Not failed: nobody did anything wrong."""
    with recorded_events() as events:
        task = asyncio.create_task(_span("waits"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert events.states() == ["started", "cancelled"]


def test_a_context_is_used_once() -> None:
    """A second use would mix two stretches of work."""
    with recorded_events():
        context = ProcessingStatusContext("merge")
        with context:
            pass
        with pytest.raises(RuntimeError, match="new one"), context:
            pass


def test_progress_before_the_start_is_refused() -> None:
    """The error says how to use a context."""
    with pytest.raises(RuntimeError, match="not entered"):
        ProcessingStatusContext("merge").progress(1)


def test_an_empty_name_is_refused() -> None:
    """Every event has a name."""
    with pytest.raises(ValueError, match="event_prefix"):
        ProcessingStatusContext("")
