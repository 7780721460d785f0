"""`@actor`, run by a real Dramatiq worker on a stub broker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq import broker as dramatiq_broker
from dramatiq.brokers.redis import RedisBroker

from worker import (
    Fatal,
    NoContentFound,
    ProcessingStatusContext,
    RetryLater,
    Settings,
    actor,
    current_attempt,
    run_async_in_new_loop,
)
from worker.attempts.subjects import sent_subjects
from worker.broker.in_loop import SendInLoopWarning
from worker.errors import LeaseTaken
from worker.operations.actors import first_that_fits
from worker.testing import StubWorker, stub_worker


def test_an_async_function_is_run_with_its_events(stub: StubWorker) -> None:
    """Name, subject, message, attempt and queue are those of the message."""
    seen = []

    @actor(queue_name="cpu", subject=("user_id",))
    async def welcome(user_id: int, *, greeting: str = "hello") -> str:
        await asyncio.sleep(0)
        seen.append((user_id, greeting, current_attempt()))
        return greeting

    message = welcome.send(7, greeting="hi")
    stub.join()
    [(user, greeting, attempt)] = seen
    assert (user, greeting) == (7, "hi")
    assert attempt is not None
    assert (attempt.message_id, attempt.actor, attempt.queue, attempt.number) == (
        message.message_id,
        "welcome",
        "cpu",
        1,
    )
    started, completed = stub.events
    assert [started.event, completed.event] == ["welcome.started", "welcome.completed"]
    for event in (started, completed):
        assert event.subject == {"user_id": 7}
        assert (event.message_id, event.actor, event.queue, event.attempt) == (message.message_id, "welcome", "cpu", 1)
        assert event.queued_ms is not None
    assert current_attempt() is None


def test_a_subject_that_is_sent_by_name_is_told_through_a_decorator_that_adds_arguments(stub: StubWorker) -> None:
    """The decorator's own argument is not sent."""

    def in_session(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def inner(**kwargs: int) -> None:
            function("session", **kwargs)

        return inner

    def works(session: str, user_id: int) -> None: ...

    actor(subject=("user_id",))(in_session(works)).send(user_id=7)
    stub.join()
    assert [event.subject for event in stub.events] == [{"user_id": 7}] * 2


@pytest.mark.parametrize("annotation", ["Unknown", "asyncio.Unknown", "'Unknown' | None", "Settings[int]"])
def test_annotations_are_for_type_checkers_and_need_not_be_evaluated(stub: StubWorker, annotation: str) -> None:
    """Only these may see the names, and only these can do what is written: the actor is declared, sent and run."""

    async def looks(box: str) -> None: ...

    looks.__annotations__["box"] = annotation
    made = actor(subject=("box",))(looks)
    assert first_that_fits(made, lambda signature: list(signature.parameters)) == ["box"]
    assert sent_subjects(made, ("7",), {}) == "box=7"
    made.send("7")
    stub.join()
    assert [event.state for event in stub.events] == ["started", "completed"]


def test_a_sync_function_is_run_as_it_is(stub: StubWorker) -> None:
    """In the worker's own thread."""
    threads = []

    @actor
    def sync(value: str) -> None:
        threads.append(threading.current_thread().name)

    sync.send("x")
    stub.join()
    assert stub.states() == ["started", "completed"]
    assert len(threads) == 1


def test_partials_and_callable_objects_are_recognised_as_async(stub: StubWorker) -> None:
    """`iscoroutinefunction` alone misses them."""

    class Service:
        __name__ = "callable_object"

        async def __call__(self, value: str) -> None:
            ran.append(value)

    ran: list[str] = []
    declared = actor(Service())
    declared.send("a")
    stub.join()
    assert ran == ["a"]
    assert stub.states() == ["started", "completed"]


@pytest.mark.parametrize(
    ("error", "states", "dead"),
    [
        (NoContentFound("empty"), ["started", "skipped"], 0),
        (Fatal("never"), ["started", "failed"], 1),
        (ValueError("always"), ["started", "failed"] * 3, 1),
    ],
)
def test_errors_decide_what_happens_to_the_message(
    stub: StubWorker, error: Exception, states: list[str], dead: int
) -> None:
    """Skipped and acknowledged; buried at once; or retried until the budget is spent."""

    @actor(max_retries=2)
    async def fails() -> None:
        raise error

    fails.send()
    stub.join()
    assert stub.states() == states
    assert len(stub.dead_letters) == dead


def test_at_most_once_is_refused_where_it_cannot_be_promised(stub: StubWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With retries, and with a broker that delivers again what its worker lost."""
    with pytest.raises(ValueError, match="max_retries=2 contradicts at_most_once=True"):

        @actor(at_most_once=True, max_retries=2)
        def charge() -> None: ...

    assert "charge" not in stub.broker.actors
    monkeypatch.setattr(dramatiq_broker, "global_broker", RedisBroker(middleware=[]))
    with pytest.raises(ValueError, match="RedisBroker may deliver a message again; set WORKER_BROKER=streams"):

        @actor(at_most_once=True)
        def charge_again() -> None: ...


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_retries", 2),
        ("max_retries", None),
        ("min_backoff", 5),
        ("max_backoff", 5),
        ("retry_when", lambda retries, error: True),
        ("on_retry_exhausted", "other"),
    ],
)
def test_what_an_actor_that_runs_at_most_once_never_uses_is_refused(
    stub: StubWorker, option: str, value: object
) -> None:
    """When it is declared, with Dramatiq's decorator too; the line names the option."""
    options: dict[str, Any] = {option: value, "at_most_once": True}
    with pytest.raises(ValueError, match=f"{option}.* contradicts at_most_once=True"):
        dramatiq.actor(broker=stub.broker, actor_name="charge", **options)(print)
    assert "charge" not in stub.broker.actors


def test_an_actor_that_runs_at_most_once_may_say_that_it_has_no_retries(stub: StubWorker) -> None:
    """That is so anyway."""

    @actor(at_most_once=True, max_retries=0)
    def charge() -> None: ...

    assert "charge" in stub.broker.actors


def test_the_history_tells_each_attempt_and_what_comes_next(stub: StubWorker) -> None:
    """Attempts count from 1, and FAILED says when the retry is due or that there is none."""

    @actor(max_retries=1)
    async def fails() -> None:
        raise RuntimeError("boom")

    fails.send()
    stub.join()
    failed = [event for event in stub.events if event.state == "failed"]
    assert [event.attempt for event in failed] == [1, 2]
    assert failed[0].text.startswith("retry in ")
    assert failed[1].text == "dead letter"
    assert [event.error.text for event in failed if event.error] == ["boom", "boom"]


@pytest.mark.parametrize(("settings", "waited"), [(Settings(), 70), (None, 20)])
def test_retry_later_waits_as_long_as_it_says_or_in_a_quick_test_a_moment(
    settings: Settings | None, waited: int
) -> None:
    """Instead of the backoff."""
    with stub_worker(settings=settings) as stub:

        @actor
        async def busy() -> None:
            attempt = current_attempt()
            assert attempt is not None
            if attempt.number == 1:
                raise RetryLater(timedelta(milliseconds=70), "busy")

        busy.send()
        stub.join()
        del stub.broker.actors["busy"]
    assert stub.states() == ["started", "snoozed", "started", "completed"]
    events = list(stub.events)
    assert (events[1].event, events[1].text) == ("busy.snoozed", f"retry in {waited}ms")
    assert events[1].error is not None
    assert (events[1].error.type, events[1].error.text) == ("worker.errors.RetryLater", "busy")
    assert (events[2].time - events[1].time) >= timedelta(milliseconds=waited - 10)


def test_the_retry_later_that_spends_the_budget_is_a_failure(stub: StubWorker) -> None:
    """Each uses one retry; the last is FAILED, and its message a dead letter."""

    @actor(max_retries=2)
    async def busy() -> None:
        raise RetryLater(0, "busy")

    message = busy.send()
    stub.join()
    assert stub.states() == [*["started", "snoozed"] * 2, "started", "failed"]
    assert list(stub.events)[-1].text == "dead letter"
    assert stub.dead_letters == [message.message_id]


def test_a_lease_that_is_taken_never_uses_the_budget(stub: StubWorker) -> None:
    """Not even where there is none: every attempt that waits for the lease is SNOOZED."""

    @actor(max_retries=0)
    async def waits() -> None:
        attempt = current_attempt()
        assert attempt is not None
        if attempt.number <= 3:
            raise LeaseTaken("one", "another", timedelta(0))

    waits.send()
    stub.join()
    assert stub.states() == [*["started", "snoozed"] * 3, "started", "completed"]
    assert [event.attempt for event in stub.events] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert stub.dead_letters == []


def test_a_span_through_which_a_request_for_a_later_time_passes_is_snoozed(stub: StubWorker) -> None:
    """As its attempt is: neither is found among the failures."""

    @actor
    async def busy() -> None:
        attempt = current_attempt()
        assert attempt is not None
        with ProcessingStatusContext("fetch"):
            if attempt.number == 1:
                raise RetryLater(0, "busy")

    busy.send()
    stub.join()
    ends = [event.event for event in stub.events if event.state.is_final]
    assert ends == ["fetch.snoozed", "busy.snoozed", "fetch.completed", "busy.completed"]


def test_a_request_for_a_later_time_that_the_actor_handles_is_none(stub: StubWorker) -> None:
    """Its message is acknowledged, and the attempt COMPLETED."""

    @dramatiq.actor(broker=stub.broker)
    def handles() -> None:
        with contextlib.suppress(RetryLater), ProcessingStatusContext("handles"):
            raise RetryLater(0, "busy")

    handles.send()
    stub.join()
    assert stub.states() == ["started", "completed"]


def test_the_explicit_form_works_just_as_well(stub: StubWorker) -> None:
    """A plain Dramatiq actor, a status context, one call through the bridge."""

    async def service(value: str) -> str:
        return value.upper()

    @dramatiq.actor(queue_name="cpu", broker=stub.broker)
    def explicit(value: str) -> None:
        with ProcessingStatusContext("shout", "about to", value=value) as status:
            status.set_exit_message(run_async_in_new_loop(service(value)))

    explicit.send("x")
    stub.join()
    started, completed = stub.events
    assert (started.event, started.text, started.subject) == ("shout.started", "about to", {"value": "x"})
    assert (completed.event, completed.text, completed.actor) == ("shout.completed", "X", "explicit")


def test_an_actor_without_a_context_has_its_events_too(stub: StubWorker) -> None:
    """Under the actor's name; nothing skips silently."""

    @dramatiq.actor(broker=stub.broker)
    def plain(skip: bool) -> None:
        if skip:
            raise NoContentFound("nothing")

    plain.send(False)
    plain.send(True)
    stub.join()
    assert sorted(event.event for event in stub.events) == [
        "plain.completed",
        "plain.skipped",
        "plain.started",
        "plain.started",
    ]
    assert stub.dead_letters == []


def test_an_error_that_escapes_after_the_context_is_what_counts(stub: StubWorker) -> None:
    """One attempt has one outcome: the message's."""

    @dramatiq.actor(broker=stub.broker, max_retries=0)
    def late() -> None:
        with ProcessingStatusContext("late"):
            pass
        raise ValueError("after")

    late.send()
    stub.join()
    assert stub.states() == ["started", "failed"]
    assert len(stub.dead_letters) == 1


def test_an_error_that_the_actor_handles_does_not_fail_the_attempt(stub: StubWorker) -> None:
    """The message is acknowledged: COMPLETED, and the error is still told."""

    @dramatiq.actor(broker=stub.broker)
    def handles() -> None:
        try:
            with ProcessingStatusContext("handles"):
                raise ValueError("expected")
        except ValueError:
            pass

    handles.send()
    stub.join()
    assert stub.states() == ["started", "completed"]
    error = list(stub.events)[-1].error
    assert error is not None
    assert error.text == "expected"


def test_a_second_context_is_a_span_of_the_attempt(stub: StubWorker) -> None:
    """The first outermost one names the attempt."""

    @dramatiq.actor(broker=stub.broker)
    def two() -> None:
        with ProcessingStatusContext("first"):
            pass
        with ProcessingStatusContext("second"):
            pass

    sent = two.send()
    stub.join()
    assert [event.event for event in stub.events] == [
        "first.started",
        "second.started",
        "second.completed",
        "first.completed",
    ]
    first, second, *_ = stub.events
    assert (first.id, second.id, second.parent) == (f"{sent.message_id}:1", f"{sent.message_id}:1/1", first.id)


def test_by_default_all_messages_share_one_loop_and_new_gives_each_its_own(stub: StubWorker) -> None:
    """Clients kept at module level work on the shared one."""
    shared, new = [], []

    @actor
    async def on_shared() -> None:
        shared.append(asyncio.get_running_loop())

    @actor(loop="new")
    async def on_new() -> None:
        new.append(asyncio.get_running_loop())

    for _ in range(3):
        on_shared.send()
        on_new.send()
    stub.join()
    assert len({id(loop) for loop in shared}) == 1
    assert len({id(loop) for loop in new}) == 3


def test_a_time_limit_ends_an_attempt(stub: StubWorker) -> None:
    """And it is FAILED with the limit as its error."""

    @actor(time_limit=timedelta(milliseconds=50), max_retries=0)
    async def endless() -> None:
        await asyncio.Event().wait()

    endless.send()
    stub.join()
    assert stub.states() == ["started", "failed"]
    error = list(stub.events)[-1].error
    assert error is not None
    assert error.line == "TimeLimitExceeded: it took longer than its time limit of 50ms"


async def test_asend_enqueues_without_blocking_the_loop(stub: StubWorker) -> None:
    """For callers that live in a loop themselves."""

    @actor
    async def noted(value: str) -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = await noted.asend("x")
    await asyncio.to_thread(stub.join)
    assert message.args == ("x",)
    assert stub.states(message_id=message.message_id) == ["started", "completed"]


async def test_each_place_that_sends_inside_a_running_loop_is_warned_of_once(stub: StubWorker) -> None:
    """It works, and the warning names the place and says what would be better."""

    @actor
    async def noted() -> None: ...

    def send() -> None:
        noted.send()

    ways: list[Callable[[], object]] = [
        send,
        lambda: noted.send_with_options(),
        lambda: noted.send_many([noted.message()]),
        lambda: noted.send_unique(key="key"),
        lambda: noted.send_once(message_id="id"),
        lambda: noted.configure(delay="1ms").send(),
        lambda: noted.configure(delay="1ms").send_many([noted.message()]),
    ]
    for way in ways:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(2):
                way()
        [warning] = caught
        assert warning.category is SendInLoopWarning
        assert "asend" in str(warning.message)
        assert (warning.filename, warning.lineno) == (__file__, way.__code__.co_firstlineno + (way is send))
    await asyncio.to_thread(stub.join)


async def test_no_async_way_to_send_warns(stub: StubWorker) -> None:
    """With and without options."""

    @actor
    async def noted() -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await noted.asend()
        await noted.asend_many([noted.message()])
        await noted.configure(priority=1).asend()
        await noted.configure(priority=1).asend_many([noted.message()])
    await asyncio.to_thread(stub.join)
    assert sorted(stub.states()) == ["completed"] * 4 + ["started"] * 4


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"subject": ("missing",)}, ValueError),
        ({"subject": ("message",)}, ValueError),
        ({"subject": "user_id"}, TypeError),
        ({"loop": "other"}, ValueError),
        ({"queue_name": "no spaces"}, ValueError),
    ],
)
def test_bad_options_are_refused_where_they_are_written(
    stub: StubWorker, options: dict[str, Any], error: type[Exception]
) -> None:
    """At the declaration, not at the first message."""

    async def service(user_id: int, message: str) -> None: ...

    with pytest.raises(error):
        actor(**options)(service)


def test_an_actor_can_be_called_directly(stub: StubWorker) -> None:
    """In a script or a test, for its result."""

    @actor
    async def double(value: int) -> int:
        return 2 * value

    assert double(4) == 8


def test_wrong_arguments_of_another_program_fail_the_attempt_with_pythons_own_words(stub: StubWorker) -> None:
    """The history shows what was missing."""

    @actor(max_retries=0, subject=("value",))
    async def one_argument(value: int) -> None: ...

    stub.broker.enqueue(dramatiq.Message("default", "one_argument", (), {}, {}))
    stub.join()
    error = list(stub.events)[-1].error
    assert error is not None
    assert "missing 1 required positional argument: 'value'" in error.text
