"""Attempts of async actors on the shared loop: without a thread of their own, and with every promise of one."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import sentry_sdk
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import CurrentMessage, Middleware, TimeLimitExceeded
from dramatiq.middleware.prometheus import Prometheus
from dramatiq.rate_limits import Barrier
from dramatiq.results import Results
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.dramatiq import DramatiqIntegration
from sentry_sdk.transport import Transport

from tests.docs.pages import ROOT, blocks
from tests.support.brokers import stream_broker
from tests.support.stored import event_states, state_of, stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import (
    NoContentFound,
    ProcessingStatusContext,
    RetryLater,
    actor,
    current_attempt,
    loop_resource,
    run_in_thread_pool,
)
from worker.broker.backend import NamespacedBackend, NamespacedResults
from worker.broker.streams import StreamBroker
from worker.history.filters import MessageFilter
from worker.history.overview import workers
from worker.history.query import ask, count_messages
from worker.operations.actions import cancel
from worker.server.embedded import EmbeddedServer
from worker.server.keys import LOOP, THREAD
from worker.settings import Settings

QUICK = {"min_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2)}


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker whose workers run at most 20 async attempts at once."""
    with stream_broker(settings, concurrency=20, grace=timedelta(0), **QUICK) as made:
        yield made


class Gate:
    """Attempts that wait until the test lets them go."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.is_open = threading.Event()

    async def wait(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        while not self.is_open.is_set():  # noqa: ASYNC110 - the test's thread opens it
            await asyncio.sleep(0.005)
        self.inside -= 1


def runner_of(broker: StreamBroker, name: str) -> str:
    """The runner that the server knows of an actor."""
    found: bytes | None = broker.client.hget(f"{broker.client.namespace.prefix}runners", name)  # type: ignore[assignment]
    return "" if found is None else found.decode()


def is_done(broker: StreamBroker, message: dramatiq.Message[object]) -> Callable[[], bool]:
    return lambda: state_of(broker.client, message.message_id) == "completed"


def test_attempts_that_wait_take_no_threads(broker: StreamBroker) -> None:
    """Twenty wait at once in a worker with one thread, and a sync actor runs meanwhile on that thread."""
    gate = Gate()

    @actor
    async def waits() -> None:
        await gate.wait()

    @actor
    def plain() -> None:
        """Ends at once."""

    sent = waits.send_many(waits.message() for _ in range(30))
    with working(broker, threads=1):
        wait_until(lambda: gate.inside == 20)
        other = plain.send()
        wait_until(is_done(broker, other))
        [about] = ask(broker.client, workers())
        assert about.concurrency == 20
        gate.is_open.set()
        broker.join("default", timeout=30_000)
    assert gate.most == 20
    assert all(event_states(broker.client, one.message_id) == ["started", "completed"] for one in sent)


def test_busy_threads_leave_the_loop_alone(broker: StreamBroker) -> None:
    """Async attempts run while sync ones take all threads, and more wait."""
    is_over = threading.Event()

    @actor
    def blocks() -> None:
        is_over.wait(30)

    @actor
    async def passes() -> None:
        """Ends at once."""

    blocks.send_many(blocks.message() for _ in range(5))
    with working(broker, threads=1):
        wait_until(lambda: broker.session is not None and len(broker.session.holdings) > 0)
        for _ in range(3):
            wait_until(is_done(broker, passes.send()))
        is_over.set()
        broker.join("default", timeout=30_000)


def test_the_history_says_started_before_the_first_line(broker: StreamBroker) -> None:
    """A service that asks for its own attempt's state finds it."""
    seen: list[str] = []

    @actor(subject=("name",))
    async def greet(name: str) -> None:
        found = current_attempt()
        assert found is not None
        for _ in range(500):
            if (state := await run_in_thread_pool(state_of, broker.client, found.message_id)) == "running":
                break
            await asyncio.sleep(0.01)
        seen.append(state)

    message = greet.send("Ada")
    with working(broker):
        wait_until(is_done(broker, message))
    assert seen == ["running"]
    found = stored(broker.client, message.message_id)
    assert found.subject == {"name": "Ada"}
    assert [event.event for event in found.events] == ["greet.started", "greet.completed"]
    assert all(event.subject == {"name": "Ada"} for event in found.events)


def test_a_context_inside_is_a_span_of_the_attempts_own(broker: StreamBroker) -> None:
    """As on a thread: its parent is the attempt's STARTED, and a skip inside passes on."""

    @actor
    async def outer(skips: bool) -> None:
        with ProcessingStatusContext("inner"):
            if skips:
                raise NoContentFound("nothing there")

    messages = [outer.send(False), outer.send(True)]
    with working(broker):
        broker.join("default", timeout=30_000)
    for message, ends in zip(messages, ("completed", "skipped"), strict=True):
        own, span, span_end, end = stored(broker.client, message.message_id).events
        assert [own.event, span.event, span_end.event, end.event] == [
            "outer.started",
            "inner.started",
            f"inner.{ends}",
            f"outer.{ends}",
        ]
        assert span.parent == own.id
        assert end.parent == own.id


def test_an_attempt_that_blocks_the_loop_has_one_set_of_events(broker: StreamBroker) -> None:
    """STARTED, and the end with its blocked time; both bear the subject of the message."""

    @actor(subject=("name",))
    async def blocks(name: str) -> None:
        time.sleep(0.15)  # noqa: ASYNC251 - that is what it is for

    message = blocks.send("Ada")
    with working(broker):
        broker.join("default", timeout=30_000)
    started, ended = stored(broker.client, message.message_id).events
    assert [started.event, ended.event] == ["blocks.started", "blocks.completed"]
    assert started.subject == ended.subject == {"name": "Ada"}
    assert (ended.blocked_ms or 0) > 0
    assert ended.parent == started.id


def test_errors_are_retried_skipped_and_snoozed_as_on_a_thread(broker: StreamBroker) -> None:
    """The same events, in the same order."""
    runs: list[str] = []

    @actor(max_retries=3)
    async def ends(how: str) -> None:
        runs.append(how)
        if runs.count(how) > 1 or how == "well":
            return
        raise {"fails": ValueError("no"), "skips": NoContentFound("none"), "snoozes": RetryLater(0)}[how]

    messages = {how: ends.send(how) for how in ("well", "fails", "skips", "snoozes")}
    with working(broker):
        broker.join("default", timeout=30_000)
    assert {how: event_states(broker.client, one.message_id) for how, one in messages.items()} == {
        "well": ["started", "completed"],
        "fails": ["started", "failed", "started", "completed"],
        "skips": ["started", "skipped"],
        "snoozes": ["started", "snoozed", "started", "completed"],
    }


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # Dramatiq's thread ends with it
@pytest.mark.parametrize("loop", ["shared", "new"])
def test_an_error_that_the_middleware_is_not_told_is_no_success(broker: StreamBroker, loop: Any) -> None:
    """Where an option of the actor keeps its error from being judged, it is a dead letter, and never completed."""

    @actor(loop=loop)
    async def fails() -> None:
        raise KeyError("lost")

    fails.options["throws"] = "KeyError"  # after its declaration, which refuses it
    with working(broker):
        message = fails.send()
        wait_until(lambda: state_of(broker.client, message.message_id) in ("dead", "completed"))
    assert state_of(broker.client, message.message_id) == "dead"
    assert event_states(broker.client, message.message_id)[-1] == "failed"


def test_a_time_limit_cancels_the_coroutine_and_awaits_its_clean_up(broker: StreamBroker) -> None:
    """The interrupt is the error that the history has, also if the clean-up fails."""
    cleaned: list[str] = []

    @actor(time_limit=timedelta(milliseconds=50), max_retries=0)
    async def too_long(how: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(how)
            if how == "badly":
                raise ValueError(how)

    messages = [too_long.send("well"), too_long.send("badly")]
    with working(broker):
        broker.join("default", timeout=30_000)
    assert sorted(cleaned) == ["badly", "well"]
    for message in messages:
        end = stored(broker.client, message.message_id).events[-1]
        assert end.error is not None
        assert end.error.name == TimeLimitExceeded.__name__


def test_a_person_cancels_it_also_before_it_has_begun(broker: StreamBroker) -> None:
    """The coroutine cleans up; a message that waits for its turn never runs."""
    gate = Gate()
    cleaned = threading.Event()

    @actor
    async def waits(forever: bool) -> None:
        if not forever:
            await gate.wait()
            return
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    runs = waits.send(True)
    others = waits.send_many(waits.message(False) for _ in range(19))
    with working(broker):
        wait_until(lambda: gate.inside == 19 and state_of(broker.client, runs.message_id) == "running")
        late = waits.send(False)
        for message in (runs, late):
            cancel(broker.client, [message.message_id], by="a test")
        wait_until(lambda: state_of(broker.client, runs.message_id) == "cancelled")
        gate.is_open.set()
        broker.join("default", timeout=30_000)
    assert cleaned.is_set()
    assert event_states(broker.client, runs.message_id) == ["started", "requested", "cancelled"]
    assert "started" not in event_states(broker.client, late.message_id)
    assert all(state_of(broker.client, one.message_id) == "completed" for one in others)


def test_a_worker_that_stops_waits_for_its_coroutines(settings: Settings, valkey: EmbeddedServer) -> None:
    """They end within the grace period; what waits for its turn goes back to its queue."""
    gate = Gate()
    with stream_broker(settings, concurrency=2, **QUICK) as broker:

        @actor
        async def waits() -> None:
            await gate.wait()

        sent = waits.send_many(waits.message() for _ in range(3))
        with working(broker) as worker:
            wait_until(lambda: gate.inside == 2)
            stopping = threading.Thread(target=worker.stop)
            stopping.start()
            wait_until(lambda: "queued" in {state_of(broker.client, one.message_id) for one in sent})
            gate.is_open.set()
            stopping.join(30)
            states = sorted(state_of(broker.client, one.message_id) for one in sent)
    assert states == ["completed", "completed", "queued"]


def test_a_shutdown_interrupts_them_after_the_grace_period(broker: StreamBroker) -> None:
    """The attempt is CANCELLED, and the message waits for another worker."""
    began, cleaned = threading.Event(), threading.Event()

    @actor
    async def waits() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    message = waits.send()
    with working(broker):
        assert began.wait(30)
    assert cleaned.is_set()
    assert event_states(broker.client, message.message_id) == ["started", "cancelled"]
    assert state_of(broker.client, message.message_id) == "queued"


def test_no_second_attempt_begins_while_a_call_of_the_first_goes_on(broker: StreamBroker) -> None:
    """A blocking call cannot be stopped: its attempt lasts as long, also after the time limit."""
    at_once = 0
    most = 0
    let_go = threading.Event()

    def blocks() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        let_go.wait(30)
        at_once -= 1

    @actor(time_limit=timedelta(milliseconds=50), max_retries=1)
    async def calls() -> None:
        await asyncio.to_thread(blocks)

    message = calls.send()
    with working(broker):
        wait_until(lambda: at_once == 1)
        time_limit_is_over = time.monotonic() + 0.2
        wait_until(lambda: time.monotonic() > time_limit_is_over)
        assert event_states(broker.client, message.message_id) == ["started"]
        let_go.set()
        broker.join("default", timeout=30_000)
    assert most == 1


def test_each_attempt_has_a_context_of_its_own(broker: StreamBroker) -> None:
    """What one binds no other sees, however they take turns."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[tuple[str, str, str]] = []

    @actor
    async def binds(name: str) -> None:
        before = tenant.get()
        tenant.set(name)
        await asyncio.sleep(0.01)
        found = current_attempt()
        assert found is not None
        seen.append((name, before, tenant.get()))

    names = [str(number) for number in range(40)]
    binds.send_many(binds.message(name) for name in names)
    with working(broker):
        broker.join("default", timeout=30_000)
    assert sorted(seen) == sorted((name, "nobody", name) for name in names)


def test_they_share_the_loops_resources(broker: StreamBroker) -> None:
    """One client for all messages, closed when the worker ends."""
    opened: list[object] = []
    closed: list[object] = []
    used: list[object] = []

    @loop_resource
    async def client():  # type: ignore[no-untyped-def]
        made = object()
        opened.append(made)
        yield made
        closed.append(made)

    @actor
    async def uses() -> None:
        used.append(await client())

    uses.send_many(uses.message() for _ in range(10))
    with working(broker):
        broker.join("default", timeout=30_000)
    assert len(opened) == 1
    assert used == opened * 10
    assert closed == opened


def test_an_urgent_message_overtakes_those_that_wait(settings: Settings, valkey: EmbeddedServer) -> None:
    """Priorities hold among the messages of the loop."""
    gate, order = Gate(), list[str]()
    with stream_broker(settings, concurrency=1, **QUICK) as broker:

        @actor
        async def holds() -> None:
            await gate.wait()

        @actor
        async def usual() -> None:
            order.append("usual")

        @actor
        async def urgent() -> None:
            order.append("urgent")

        urgent.priority = -5
        holds.send()
        with working(broker):
            wait_until(lambda: gate.inside == 1)
            usual.send_many(usual.message() for _ in range(3))
            urgent.send()
            gate.is_open.set()
            broker.join("default", timeout=30_000)
    assert order == ["urgent", "usual", "usual", "usual"]


class Blocks(Middleware):
    """Somebody's middleware that says nothing of the loop."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Does as if it blocked."""


class Knows(Blocks):
    """One that says that it may be called on the loop."""

    runs_on_loop = True


class DerivesFrom(Knows):
    """A subclass, which may block: it says nothing of itself."""


class OnlyBoots(Middleware):
    """One without a hook for messages."""

    def after_process_boot(self, broker: Broker) -> None:
        """Opens something."""


@pytest.mark.parametrize(
    ("middleware", "runner"),
    [(Blocks(), THREAD), (Knows(), LOOP), (DerivesFrom(), THREAD), (OnlyBoots(), LOOP), (CurrentMessage(), LOOP)],
    ids=lambda one: type(one).__name__ if isinstance(one, Middleware) else one,
)
def test_a_middleware_that_might_block_keeps_actors_to_threads(
    broker: StreamBroker, middleware: Middleware, runner: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line at the start says which it is, and what to do."""
    broker.add_middleware(middleware)
    threads: list[str] = []

    @actor
    async def says() -> None:
        threads.append(threading.current_thread().name)

    message = says.send()
    with working(broker):
        wait_until(is_done(broker, message))
        assert runner_of(broker, "says") == runner
        [about] = ask(broker.client, workers())
        assert (about.concurrency > 0) is (runner == LOOP)
    told = [record.getMessage() for record in caplog.records if "takes a thread" in record.getMessage()]
    assert len(told) == (runner == THREAD)
    assert all(type(middleware).__name__ in line and "runs_on_loop = True" in line for line in told)


def test_an_actor_whose_function_somebody_has_wrapped_keeps_to_threads(broker: StreamBroker) -> None:
    """Else what wraps it would never run."""
    ran: list[str] = []

    class Wraps(Middleware):
        runs_on_loop = True

        def after_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., object]) -> None:
            function = actor.fn

            @functools.wraps(function)
            def wrapped(*args: object) -> object:
                ran.append("wrapped")
                return function(*args)

            actor.fn = wrapped

    broker.add_middleware(Wraps())

    @actor
    async def says() -> None:
        ran.append("body")

    message = says.send()
    with working(broker):
        wait_until(is_done(broker, message))
    assert ran == ["wrapped", "body"]


def test_hooks_see_the_message_in_its_attempts_context(broker: StreamBroker) -> None:
    """In Dramatiq's order; what a hook binds the body sees, and the hooks after it."""
    bound: ContextVar[str] = ContextVar("bound", default="")
    seen: list[tuple[str, str, str]] = []

    class Notes(Middleware):
        runs_on_loop = True

        def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
            self.token = bound.set(message.message_id)
            seen.append(("before", message.message_id, bound.get()))

        def after_process_message(
            self,
            broker: Broker,
            message: MessageProxy,
            *,
            result: object = None,
            exception: BaseException | None = None,
        ) -> None:
            seen.append(("after", message.message_id, bound.get()))

        def before_ack(self, broker: Broker, message: MessageProxy) -> None:
            seen.append(("ack", message.message_id, bound.get()))

    broker.add_middleware(Notes())
    broker.add_middleware(CurrentMessage())

    @actor
    async def says() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen.append(("body", message.message_id, bound.get()))

    message = says.send()
    with working(broker):
        wait_until(is_done(broker, message))
    own = message.message_id
    assert seen == [(place, own, own) for place in ("before", "body", "after", "ack")]


def test_results_groups_and_pipelines_work(broker: StreamBroker) -> None:
    """What waits for the server does so in a thread, in the attempt's context; callbacks follow once."""
    broker.add_middleware(Results(backend=NamespacedResults(broker.client), store_results=True))
    called: list[str] = []

    @actor
    async def doubles(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    @actor
    async def fails() -> None:
        raise ValueError("no")

    fails.options["max_retries"] = 0

    @actor
    async def after(_: object = None) -> None:
        called.append("after")

    with working(broker):
        assert doubles.send(4).get_result(block=True, timeout=20_000) == 8
        piped = (doubles.message(1) | doubles.message()).run()  # type: ignore[call-arg]
        assert piped.get_result(block=True, timeout=20_000) == 4
        group = dramatiq.group([doubles.message(number) for number in range(3)])
        group.add_completion_callback(after.message())
        assert sorted(group.run().get_results(block=True, timeout=20_000)) == [0, 2, 4]
        wait_until(lambda: called == ["after"])
        with pytest.raises(dramatiq.results.errors.ResultFailure):
            fails.send().get_result(block=True, timeout=20_000)
        broker.join("default", timeout=30_000)
    assert called == ["after"]


def test_a_coroutine_that_cancels_itself_as_it_returns_has_an_end(broker: StreamBroker) -> None:
    """Its result is stored in a thread, for which its task then waits no more."""
    broker.add_middleware(Results(backend=NamespacedResults(broker.client), store_results=True))

    @actor(max_retries=0)
    async def leaves() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 4

    sent = leaves.send_many(leaves.message() for _ in range(60))
    with working(broker):
        broker.join("default", timeout=20_000)
    assert {state_of(broker.client, one.message_id) for one in sent} == {"completed"}


def test_an_exception_for_the_loops_thread_is_refused_and_told(
    broker: StreamBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """It would hit every coroutine of the process."""
    gate = Gate()
    loop_thread: list[int] = []

    @actor
    async def waits() -> None:
        loop_thread.append(threading.get_ident())
        await gate.wait()

    messages = waits.send_many(waits.message() for _ in range(3))
    with working(broker):
        wait_until(lambda: gate.inside == 3)
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        assert raise_in(ctypes.c_long(loop_thread[0]), ctypes.py_object(TimeLimitExceeded)) == 0
        gate.is_open.set()
        broker.join("default", timeout=30_000)
    assert any("is refused" in record.getMessage() for record in caplog.records)
    assert all(event_states(broker.client, one.message_id) == ["started", "completed"] for one in messages)


def test_a_coroutine_that_ends_the_program_ends_only_its_attempt(broker: StreamBroker) -> None:
    """`SystemExit` is an error of the attempt; the others go on."""

    @actor(max_retries=0)
    async def leaves() -> None:
        raise SystemExit(3)

    @actor
    async def stays() -> None:
        await asyncio.sleep(0.05)

    left, stayed = leaves.send(), stays.send()
    with working(broker):
        broker.join("default", timeout=30_000)
    assert state_of(broker.client, left.message_id) == "dead"
    assert state_of(broker.client, stayed.message_id) == "completed"


def test_what_was_enqueued_for_threads_is_found_by_the_loop(broker: StreamBroker) -> None:
    """Its actor was sync in an earlier version: a worker that joins says its runner, and what waits is moved."""
    runs: list[int] = []

    @dramatiq.actor(actor_name="passes")
    def earlier(number: int) -> None:
        raise AssertionError(f"the earlier version ran {number}")

    with working(broker):
        wait_until(lambda: runner_of(broker, "passes") == THREAD)
    for number in range(50):
        earlier.send(number)
    assert broker.client.xlen(broker.client.namespace.stream("default", "normal", THREAD)) == 50
    del broker.actors["passes"]

    @actor
    async def passes(number: int) -> None:
        runs.append(number)

    with working(broker):
        broker.join("default", timeout=30_000)
    assert sorted(runs) == list(range(50))
    assert runner_of(broker, "passes") == LOOP


def test_a_barrier_of_dramatiqs_still_counts(broker: StreamBroker) -> None:
    """An async actor may use Dramatiq's rate limits through the thread pool."""
    barrier = Barrier(NamespacedBackend(broker.client), "all-there")
    barrier.create(3)
    last: list[bool] = []

    @actor
    async def arrives() -> None:
        last.append(await run_in_thread_pool(barrier.wait, block=False))

    arrives.send_many(arrives.message() for _ in range(3))
    with working(broker):
        broker.join("default", timeout=30_000)
    assert sorted(last) == [False, False, True]


def test_an_actor_may_have_a_number_of_attempts_of_its_own(broker: StreamBroker) -> None:
    """It takes no place of the others', and they none of its; what it cannot begin stays on the server."""
    own, others = Gate(), Gate()

    @actor(concurrency=2)
    async def few() -> None:
        await own.wait()

    @actor
    async def many() -> None:
        await others.wait()

    messages = few.send_many(few.message() for _ in range(6))
    with working(broker):
        wait_until(lambda: own.inside == 2)
        more = many.send_many(many.message() for _ in range(25))
        wait_until(lambda: others.inside == 20)
        [about] = ask(broker.client, workers())
        assert about.concurrency == 22
        own.is_open.set()
        wait_until(lambda: all(is_done(broker, one)() for one in messages))
        others.is_open.set()
        broker.join("default", timeout=30_000)
    assert (own.most, others.most) == (2, 20)
    assert all(is_done(broker, one)() for one in more)
    assert runner_of(broker, "few") == "loop.few"


def test_an_idle_worker_wakes_for_an_actor_that_has_room_again(broker: StreamBroker) -> None:
    """The reader waits at the server for the others only while this one has no room."""
    runs: list[int] = []

    @actor(concurrency=1)
    async def one_by_one(number: int) -> None:
        await asyncio.sleep(0.02)
        runs.append(number)

    with working(broker):
        started = time.monotonic()
        for number in range(5):
            one_by_one.send(number)
        broker.join("default", timeout=30_000)
    assert sorted(runs) == list(range(5))
    assert time.monotonic() - started < 4  # without the wake-up, each waits for five seconds


@pytest.mark.parametrize(
    ("concurrency", "loop", "said"),
    [(0, "shared", "from 1"), (3, "new", "on the shared loop")],
)
def test_a_number_of_attempts_that_cannot_be_kept_is_refused(concurrency: int, loop: str, said: str) -> None:
    """When the actor is declared."""

    async def work() -> None:
        """Does nothing."""

    with pytest.raises(ValueError, match=said):
        actor(concurrency=concurrency, loop=loop)(work)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="on the shared loop"):
        actor(concurrency=3)(lambda: None)


def test_a_heartbeat_names_two_hundred_attempts_and_counts_the_rest(settings: Settings, valkey: EmbeddedServer) -> None:
    """However many run, it stays short; the server itself knows all of them."""
    gate = Gate()
    with stream_broker(settings, concurrency=300, lease=timedelta(seconds=1), **QUICK) as broker:

        @actor
        async def waits() -> None:
            await gate.wait()

        waits.send_many(waits.message() for _ in range(300))
        with working(broker):
            wait_until(lambda: gate.inside == 300)
            wait_until(lambda: ask(broker.client, workers())[0].on_loop == 300)
            [about] = ask(broker.client, workers())
            wait_until(lambda: count_messages(broker.client, MessageFilter(states=("running",))) == 300)
            gate.is_open.set()
            broker.join("default", timeout=30_000)
    assert len(about.attempts) == 200
    assert about.threads_busy == 0


def test_dramatiqs_prometheus_counts_on_the_loop(
    broker: StreamBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one of the known middleware."""
    monkeypatch.setenv("dramatiq_prom_db", str(tmp_path))
    prometheus = Prometheus()
    prometheus.after_process_boot(broker)
    broker.add_middleware(prometheus)

    @actor
    async def passes() -> None:
        await asyncio.sleep(0)

    passes.send_many(passes.message() for _ in range(20))
    with working(broker):
        broker.join("default", timeout=30_000)
        assert runner_of(broker, "passes") == LOOP
        labels = prometheus.total_messages.labels("default", "passes")
        assert labels._value.get() == 20
        assert prometheus.inprogress_messages.labels("default", "passes")._value.get() == 0


class Collects(Transport):
    """A transport that keeps what Sentry would be sent."""

    kept: list[dict[str, Any]]

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        Collects.kept = []

    def capture_envelope(self, envelope: Any) -> None:
        Collects.kept += [found for found in (envelope.get_event(),) if found is not None]


def test_sentrys_middleware_reports_on_the_loop(
    settings: Settings, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one of the known middleware: each error comes with its own message, however attempts take turns."""
    monkeypatch.setattr(Broker, "__init__", Broker.__init__)  # which Sentry replaces
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Collects,
        integrations=[DramatiqIntegration()],
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    try:
        with stream_broker(settings, **QUICK) as broker:

            @actor(max_retries=0)
            async def fails(number: int) -> None:
                await asyncio.sleep(0.01)
                raise ValueError(str(number))

            messages = {str(one): fails.send(one).message_id for one in range(10)}
            with working(broker):
                broker.join("default", timeout=30_000)
                assert runner_of(broker, "fails") == LOOP
        found = {one["exception"]["values"][0]["value"]: one["extra"]["dramatiq_message_id"] for one in Collects.kept}
    finally:
        sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False)
    assert found == messages


def test_a_trace_goes_on_in_each_attempt_on_both_runners(broker: StreamBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the middleware of the how-to: a span for each attempt, and those of services below it."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    page: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "how-to" / "trace-with-opentelemetry.md", "python")[0].code, page)
    broker.add_middleware(page["Tracing"]())
    tracer = provider.get_tracer("test")

    @actor(max_retries=1)
    async def fetch(number: int) -> None:
        attempt = current_attempt()
        assert attempt is not None
        await asyncio.sleep(0.01)
        with tracer.start_as_current_span(f"service {number}"):
            await asyncio.sleep(0)
        if number == 0 and attempt.number == 1:
            raise ValueError("once")

    @actor
    def store(number: int) -> None:
        with tracer.start_as_current_span(f"store {number}"):
            pass

    with tracer.start_as_current_span("request") as request:
        for number in range(10):
            fetch.send(number)
            store.send(number)
    with working(broker, threads=2):
        broker.join("default", timeout=30_000)
        assert runner_of(broker, "fetch") == LOOP
    spans = kept.get_finished_spans()
    assert {one.context.trace_id for one in spans} == {request.get_span_context().trace_id}
    names = {one.context.span_id: one.name for one in spans}
    parents = Counter(names[one.parent.span_id] for one in spans if one.parent is not None)
    assert parents == {"request": 21, "fetch": 11, "store": 10}
    assert [one.name for one in spans if not one.status.is_ok and one.events] == ["fetch"]


def test_quick_attempts_before_do_not_raise_the_number_at_once(broker: StreamBroker) -> None:
    """After them many messages are taken ahead, and wait for their turn all the same."""
    gate = Gate()

    @actor
    async def passes() -> None:
        """Ends at once."""

    @actor
    async def waits() -> None:
        await gate.wait()

    messages = [passes.message() for _ in range(1_000)] + [waits.message() for _ in range(60)]
    passes.send_many(messages)
    with working(broker):
        wait_until(lambda: gate.inside >= 20)
        settled = time.monotonic() + 0.1  # so that more would have begun
        wait_until(lambda: time.monotonic() > settled)
        gate.is_open.set()
        broker.join("default", timeout=30_000)
    assert gate.most == 20


def test_what_a_stranger_cancels_before_it_has_begun_runs_all_the_same(broker: StreamBroker) -> None:
    """Some library's clean-up cancels all tasks of the loop: only functions that run are hit, as by themselves."""
    ran: set[str] = set()
    cancelled = threading.Event()

    @actor(at_most_once=True)
    async def waits_to_begin() -> None:
        found = current_attempt()
        assert found is not None
        ran.add(found.message_id)

    @actor(max_retries=3)
    async def is_cancelled() -> None:
        if not cancelled.is_set():
            await asyncio.Event().wait()

    @actor
    async def cancels_all() -> None:
        for _ in range(50):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.002)
        cancelled.set()

    hit = is_cancelled.send()
    with working(broker):
        wait_until(lambda: state_of(broker.client, hit.message_id) == "running")
        cancels_all.send()
        sent = waits_to_begin.send_many(waits_to_begin.message() for _ in range(30))
        broker.join("default", timeout=30_000)
    assert ran == {one.message_id for one in sent}
    assert event_states(broker.client, hit.message_id)[:2] == ["started", "failed"]
    assert stored(broker.client, hit.message_id).state in {"completed", "dead"}
