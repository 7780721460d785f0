"""Errors that arrive in a group, as from an `asyncio.TaskGroup`: one of them decides, and all of them are told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import TimeLimitExceeded

from worker import Fatal, NoContentFound, ProcessingStatusContext, RetryLater, actor, current_attempt
from worker.ground.groups import deciding, errors_in
from worker.ground.logs import _is_wanted
from worker.history.events import MAX_TYPES, TAKEN_TEXT, ErrorInfo, StatusEvent
from worker.history.filters import EventFilter
from worker.settings import Settings
from worker.testing import StubWorker, recorded_events, stub_worker

PLAIN, FATAL, SKIP = ValueError("plain"), Fatal("never"), NoContentFound("nothing")
SOON, LATER = RetryLater(1, "soon"), RetryLater(60, "later")
LIMIT = TimeLimitExceeded("limit")


def last(stub: StubWorker) -> StatusEvent:
    return list(stub.events)[-1]


@pytest.mark.parametrize(
    ("errors", "decides"),
    [
        ([PLAIN, LIMIT, FATAL], LIMIT),
        ([SKIP, LATER, PLAIN, FATAL], FATAL),
        ([SKIP, LATER, PLAIN], PLAIN),
        ([SKIP, asyncio.CancelledError(), FATAL], FATAL),
        ([SKIP, SystemExit(1), KeyboardInterrupt(), FATAL], FATAL),
        ([SKIP, SOON, LATER], LATER),
        ([SKIP, NoContentFound("nothing either")], SKIP),
    ],
)
def test_one_error_of_a_group_decides(errors: list[BaseException], decides: BaseException) -> None:
    """An interrupt, `Fatal`, a plain error, the longest `RetryLater`, then a skip; at any depth, in any order."""
    assert deciding(BaseExceptionGroup("", errors)) is decides
    nested = BaseExceptionGroup("", [errors[0], BaseExceptionGroup("", [BaseExceptionGroup("", errors[1:])])])
    assert errors_in(nested) == errors
    assert deciding(nested) is decides
    assert type(deciding(BaseExceptionGroup("", errors[::-1]))) is type(decides)
    assert deciding(decides) is decides


@pytest.mark.parametrize(
    ("raised", "states", "dead"),
    [
        ([FATAL, SOON], ["started", "failed"], 1),
        ([PLAIN, SKIP], ["started", "failed"] * 3, 1),
        ([SKIP, NoContentFound("nothing either")], ["started", "skipped"], 0),
    ],
)
@pytest.mark.parametrize("form", ["async", "sync"])
def test_errors_in_a_task_group_decide_like_errors_alone(
    stub: StubWorker, form: str, raised: list[Exception], states: list[str], dead: int
) -> None:
    """A dead letter at once, retried until the budget is spent, or skipped: with and without a status context."""
    if form == "async":

        @actor(max_retries=2)
        async def fails() -> None:
            both = asyncio.Barrier(len(raised))

            async def one(error: Exception) -> None:
                await both.wait()
                raise error

            async with asyncio.TaskGroup() as group:
                for error in raised:
                    group.create_task(one(error))

        fails.send()
    else:

        @dramatiq.actor(broker=stub.broker, max_retries=2)
        def fails_too() -> None:
            raise ExceptionGroup("several", raised)

        fails_too.send()
    stub.join()
    assert stub.states() == states
    assert len(stub.dead_letters) == dead


def test_a_group_waits_for_the_longest_delay() -> None:
    """As `RetryLater` alone does."""
    with stub_worker(settings=Settings()) as stub:
        delays: list[int | None] = []

        class Delays(dramatiq.Middleware):
            def before_enqueue(self, broker: dramatiq.Broker, message: object, delay: int | None) -> None:
                delays.append(delay)

        stub.broker.add_middleware(Delays())

        @actor(max_retries=1)
        async def busy() -> None:
            raise ExceptionGroup("", [RetryLater(0.05), ExceptionGroup("", [RetryLater(0.1), SKIP])])

        busy.send()
        stub.join()
        del stub.broker.actors["busy"]
    assert 100 in delays


@pytest.mark.parametrize("option", ["throws", "retry_when"])
def test_throws_and_retry_when_see_the_error_that_decides(stub: StubWorker, option: str) -> None:
    """Not the group around it."""
    options: dict[str, Any] = {"throws": ValueError}
    if option == "retry_when":
        options = {"retry_when": lambda retries, error: not isinstance(error, ValueError)}

    @dramatiq.actor(broker=stub.broker, max_retries=5, **options)
    def fails() -> None:
        raise ExceptionGroup("", [NoContentFound("nothing"), ValueError("expected")])

    fails.send()
    stub.join()
    assert stub.states() == ["started", "failed"]
    assert len(stub.dead_letters) == 1


@pytest.mark.parametrize(
    ("error", "is_quiet"),
    [
        (KeyError("a"), True),
        (ExceptionGroup("", [KeyError("a"), NoContentFound("nothing")]), True),
        (ExceptionGroup("", [ExceptionGroup("", [KeyError("a")])]), True),
        (ExceptionGroup("", [KeyError("a"), PLAIN]), False),
    ],
    ids=["alone", "in a group", "in a group in a group", "beside another"],
)
def test_errors_that_are_expected_are_logged_without_a_traceback(
    stub: StubWorker, caplog: pytest.LogCaptureFixture, error: Exception, is_quiet: bool
) -> None:
    """What is in `throws` is one line, also in a group; an error that nobody expects has its traceback."""

    @dramatiq.actor(broker=stub.broker, max_retries=5, throws=KeyError)
    def fails() -> None:
        raise error

    with caplog.at_level(logging.INFO, "dramatiq"):
        fails.send()
        stub.join()
    assert len(stub.dead_letters) == 1
    assert all(record.exc_info is None for record in caplog.records) is is_quiet


def test_a_group_with_an_interrupt_is_that_interrupt(stub: StubWorker) -> None:
    """It is told as the time limit, also where sync code has collected it with other errors."""

    @dramatiq.actor(broker=stub.broker, max_retries=0)
    def collects() -> None:
        raise BaseExceptionGroup("", [Fatal("never"), TimeLimitExceeded("over")])

    collects.send()
    stub.join()
    error = last(stub).error
    assert error is not None
    assert error.types == ("dramatiq.middleware.time_limit.TimeLimitExceeded", "worker.errors.Fatal")
    assert error.text == "over (and Fatal: never)"


def test_a_cancellation_that_nobody_has_asked_for_is_a_failure(stub: StubWorker) -> None:
    """Raised by the work itself, in a group or alone: it is retried, and told as any error."""

    @actor(max_retries=0)
    def works(alone: bool) -> None:
        error = asyncio.CancelledError()
        raise error if alone else BaseExceptionGroup("", [SKIP, error])

    for alone in (True, False):
        works.send(alone)
        stub.join()
        assert last(stub).state.value == "failed"


def test_on_failure_is_told_the_error_that_decides(stub: StubWorker) -> None:
    """Its type and text, as of an error alone."""
    told: list[dict[str, str]] = []

    @dramatiq.actor(broker=stub.broker)
    def hears(message: dict[str, object], error: dict[str, str]) -> None:
        told.append(error)

    @dramatiq.actor(broker=stub.broker, max_retries=0)
    def fails() -> None:
        raise ExceptionGroup("several", [KeyError("a"), Fatal("never")])

    fails.send_with_options(on_failure=hears)
    stub.join()
    assert told == [{"type": "Fatal", "message": "never"}]


def test_type_and_text_of_an_event_name_the_errors_in_the_group() -> None:
    """First the one that decides; each once; and the traceback shows the whole group."""
    group = ExceptionGroup("several", [KeyError("a"), ExceptionGroup("", [Fatal("never")]), KeyError("a")])
    error = ErrorInfo.of(group)
    assert error.type == "worker.errors.Fatal, KeyError"
    assert error.name == "Fatal, KeyError"
    assert error.text == "never (and KeyError: 'a')"
    assert "several (3 sub-exceptions)" in error.traceback
    alone = ErrorInfo.of(ExceptionGroup("unhandled errors in a TaskGroup", [Fatal("never")]))
    assert (alone.type, alone.text) == ("worker.errors.Fatal", "never")


def test_of_a_group_of_a_hundred_kinds_some_are_kept() -> None:
    """An event stays within its bounds."""
    many = [type(f"Kind{number}", (Exception,), {})("x" * 100) for number in range(100)]
    error = ErrorInfo.of(ExceptionGroup("many", many))
    assert len(error.types) == MAX_TYPES
    assert len(error.text) == TAKEN_TEXT


@pytest.mark.parametrize("wanted", ["worker.errors.Fatal", "Fatal", "KeyError"])
def test_the_filter_of_events_finds_each_type_in_a_group(wanted: str) -> None:
    """With and without its module."""
    with recorded_events() as events, pytest.raises(ExceptionGroup), ProcessingStatusContext("fails"):
        raise ExceptionGroup("several", [KeyError("a"), Fatal("never")])
    assert [event.state.value for event in events if EventFilter(error=wanted).matches(event)] == ["failed"]
    assert not [event for event in events if EventFilter(error="ExceptionGroup").matches(event)]


def test_a_group_of_skips_is_skipped_with_all_its_texts() -> None:
    """And it does not leave the context."""
    with recorded_events() as events, ProcessingStatusContext("skips"):
        raise ExceptionGroup("", [NoContentFound("no words"), NoContentFound("no sound")])
    ended = list(events)[-1]
    assert (ended.state.value, ended.text, ended.error) == ("skipped", "no words (and NoContentFound: no sound)", None)


@pytest.mark.parametrize(("errors", "has_traceback"), [([FATAL, LATER, SKIP], False), ([FATAL, PLAIN], True)])
def test_the_log_has_no_traceback_of_a_group_that_was_raised_on_purpose(
    errors: list[Exception], has_traceback: bool
) -> None:
    """As of one such error alone; a group with a plain error has one."""
    from_dramatiq = logging.LogRecord("dramatiq.worker", logging.ERROR, "", 0, "Failed to process", None, None)
    group = ExceptionGroup("several", errors)
    from_dramatiq.exc_info = (type(group), group, None)
    assert _is_wanted(from_dramatiq)
    assert bool(from_dramatiq.exc_info) is has_traceback


def test_a_group_in_which_waiting_decides_is_snoozed(stub: StubWorker) -> None:
    """As `RetryLater` alone; of a group with a plain error the attempt has failed."""

    @actor(max_retries=1)
    async def waits(plain: bool) -> None:
        attempt = current_attempt()
        assert attempt is not None
        if attempt.number == 1:
            raise ExceptionGroup("", [NoContentFound("nothing"), PLAIN if plain else SOON, LATER])

    for plain, ended in ((False, "snoozed"), (True, "failed")):
        message = waits.send(plain)
        stub.join()
        assert stub.states(message_id=message.message_id) == ["started", ended, "started", "completed"]
