"""The contract of the bridge, on both of its loops."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import dramatiq.middleware
import pytest
import structlog
from dramatiq.brokers.stub import StubBroker

from tests.support.attempts import Attempt, Stop, short_patience
from tests.support.waiting import wait_until
from worker import (
    ProcessingStatusContext,
    loop_resource,
    run_async_in_new_loop,
    run_in_thread_pool,
)
from worker.attempts.spans import current_span
from worker.bridge import ForeignInterruptsWarning, run_async_in_shared_loop, stop_shared_loop
from worker.errors import ConfigurationError, LoopClosedError, RunningLoopError, SelfCancelledError
from worker.loops import bridge, watchdog
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.testing import recorded_events

Run = Callable[..., Any]

__all__ = ["short_patience"]

BOTH = pytest.mark.parametrize("run", [run_async_in_new_loop, run_async_in_shared_loop])
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def _own_shared_loop() -> Iterator[None]:
    yield
    stop_shared_loop()


async def answer(value: object = 42) -> object:
    await asyncio.sleep(0)
    return value


class Thenable:
    def __await__(self) -> Iterator[Any]:
        return answer("thenable").__await__()


@BOTH
@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (answer, 42),
        (lambda: answer(1), 1),
        (Thenable, "thenable"),
        (lambda: asyncio.gather(answer(1), answer(2)), [1, 2]),
    ],
)
def test_a_factory_is_called_inside_the_loop(run: Run, work: Callable[[], Awaitable[object]], expected: object) -> None:
    """Whatever it returns is awaited there."""
    assert run(work) == expected


@BOTH
def test_a_coroutine_and_any_awaitable_are_run(run: Run) -> None:
    """To their end, for their result."""
    assert run(answer(1)) == 1
    assert run(Thenable()) == "thenable"


@BOTH
@pytest.mark.parametrize("work", [None, 1, "text", lambda: 1, lambda needed: answer(needed), print])
def test_anything_else_is_a_type_error(run: Run, work: Any) -> None:
    """Which says what was expected."""
    with pytest.raises(TypeError, match="await|argument"):
        run(work)


@BOTH
async def test_inside_a_running_loop_it_is_refused_without_a_warning(run: Run) -> None:
    """The error says to await instead, and the coroutine is closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RunningLoopError, match="await"):
            run(answer())
        gc.collect()


@BOTH
def test_a_coroutine_that_ran_before_is_refused(run: Run) -> None:
    """The error says what to do: its function makes a new one."""
    coroutine = answer()
    assert run(coroutine) == 42
    with pytest.raises(RuntimeError, match="ran before: call its function again"):
        run(coroutine)


@BOTH
@pytest.mark.parametrize("inner", [run_async_in_new_loop, run_async_in_shared_loop])
def test_a_service_that_calls_the_bridge_itself_is_refused_and_not_deadlocked(run: Run, inner: Run) -> None:
    """From the loop's own thread, whichever loop it asks for."""

    async def service() -> None:
        inner(answer())

    with pytest.raises(RunningLoopError, match="await the coroutine instead"):
        run(service)
    gc.collect()


def test_the_bridge_warns_once_of_interrupts_that_cannot_reach_a_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of Dramatiq's own middleware; it says what to put in their place."""
    monkeypatch.setattr(bridge, "_looked_for_foreign", False)
    own = StubBroker(middleware=[dramatiq.middleware.TimeLimit(), dramatiq.middleware.ShutdownNotifications()])
    monkeypatch.setattr(dramatiq.broker, "global_broker", own)
    with pytest.warns(ForeignInterruptsWarning, match="ShutdownNotifications and TimeLimit of .*create_broker"):
        run_async_in_new_loop(answer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_async_in_new_loop(answer)


@BOTH
def test_errors_come_out_as_they_are(run: Run) -> None:
    """Not wrapped: a service's own types decide what happens to the message."""

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        run(fail)


def test_where_no_loop_can_be_made_the_error_comes_out_and_no_coroutine_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Say because too many files are open; a coroutine that nobody awaited would be a warning, so an error here."""

    async def idle() -> None: ...

    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(bridge, "new_loop", fail)
    for work, limit in ((idle, None), (idle, 1.0), (idle(), 1.0)):
        with pytest.raises(OSError, match="Too many"):
            run_async_in_new_loop(work, timeout=limit)
    gc.collect()


def test_each_call_has_a_loop_that_no_one_used_before() -> None:
    """And closes it."""

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first, second = run_async_in_new_loop(loop), run_async_in_new_loop(loop)
    assert first is not second
    assert first.is_closed()
    assert second.is_closed()


def test_the_shared_loop_is_one_for_all_threads_and_not_the_callers() -> None:
    """It lives in a thread of its own."""

    async def where() -> tuple[asyncio.AbstractEventLoop, int]:
        return asyncio.get_running_loop(), threading.get_ident()

    found: list[tuple[asyncio.AbstractEventLoop, int]] = []
    threads = [threading.Thread(target=lambda: found.append(run_async_in_shared_loop(where))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert found[0][1] not in {thread.ident for thread in threads}


def test_the_next_call_after_a_stop_starts_a_new_shared_loop() -> None:
    """A test, or a worker, can stop it in between."""
    assert run_async_in_shared_loop(answer) == 42
    stop_shared_loop()
    assert run_async_in_shared_loop(answer) == 42


def test_calls_in_flight_when_the_shared_loop_stops_fail_with_a_typed_error() -> None:
    """After their `finally` blocks have run; a message never hangs because the loop ended."""
    started, outcome = threading.Event(), list[object]()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            outcome.append("cleaned up")

    def call() -> None:
        try:
            run_async_in_shared_loop(wait)
        except LoopClosedError as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert started.wait(5)
    stop_shared_loop()
    thread.join(5)
    assert [type(one) for one in outcome] == [str, LoopClosedError]


def test_tasks_left_over_are_cancelled_and_awaited() -> None:
    """Their `finally` blocks run, awaits in them included."""
    ended = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    async def main() -> None:
        asyncio.ensure_future(background())  # noqa: RUF006 - left over on purpose
        await asyncio.sleep(0)

    run_async_in_new_loop(main)
    assert ended == [True]


def test_async_generators_left_open_are_closed() -> None:
    """Their `finally` blocks run before the loop ends."""
    ended = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    kept = []

    async def main() -> None:
        generator = numbers()
        kept.append(generator)
        assert await anext(generator) == 1

    run_async_in_new_loop(main)
    assert ended == [True]


def test_the_loops_own_executor_is_shut_down() -> None:
    """No call of it is left, also if nobody awaits it."""
    ended = []

    def work() -> None:
        time.sleep(0.1)
        ended.append(True)

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, work)

    run_async_in_new_loop(main)
    assert ended == [True]


@BOTH
def test_the_callers_contextvars_are_visible_everywhere_inside(run: Run) -> None:
    """In the coroutine, in its tasks, and in the thread pool; and changes stay inside."""
    VARIABLE.set("mine")

    async def look() -> list[str]:
        seen = VARIABLE.get()
        VARIABLE.set("changed")
        task = asyncio.create_task(_read_variable())
        return [seen, await task, await run_in_thread_pool(VARIABLE.get)]

    assert run(look) == ["mine", "changed", "changed"]
    assert VARIABLE.get() == "mine"


@BOTH
def test_the_status_contexts_and_structlogs_variables_are_visible_everywhere_inside(run: Run) -> None:
    """In the coroutine, in its tasks, and in the thread pool: logs and progress know their message."""

    def look() -> tuple[object, bool]:
        return structlog.contextvars.get_contextvars().get("order"), current_span.get() is not None

    async def in_task() -> tuple[object, bool]:
        return look()

    async def service() -> list[object]:
        return [look(), await asyncio.create_task(in_task()), await run_in_thread_pool(look)]

    with recorded_events(), structlog.contextvars.bound_contextvars(order=7):
        with ProcessingStatusContext("order"):
            assert run(service) == [(7, True)] * 3


async def _read_variable() -> str:
    return VARIABLE.get()


@BOTH
@pytest.mark.parametrize("limit", [0.01, timedelta(milliseconds=10)])
def test_a_timeout_cancels_in_order_and_raises_timeout_error(run: Run, limit: timedelta | float) -> None:
    """The coroutine's `finally` blocks run first."""
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(TimeoutError):
        run(slow, timeout=limit)
    assert ended == [True]


@BOTH
def test_a_coroutine_that_cancels_itself_is_a_typed_error(run: Run) -> None:
    """Not a bare CancelledError, which no `except Exception` sees."""

    async def cancel_myself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(SelfCancelledError):
        run(cancel_myself)


@BOTH
def test_resources_live_as_long_as_their_loop(run: Run) -> None:
    """Opened once, however many ask at once, and closed in reverse order."""
    log: list[str] = []

    @loop_resource
    async def first() -> AsyncIterator[str]:
        log.append("open first")
        await asyncio.sleep(0)
        yield "first"
        log.append("close first")

    @loop_resource
    async def second() -> AsyncIterator[str]:
        log.append("open second")
        yield await first() + " and second"
        log.append("close second")

    async def use() -> list[str]:
        return list(await asyncio.gather(first(), first(), second(), second()))

    assert run(use) == ["first", "first", "first and second", "first and second"]
    stop_shared_loop()
    assert log == ["open first", "open second", "close second", "close first"]


def test_a_resource_is_opened_anew_on_each_loop_and_closed_after_errors() -> None:
    """That is what keeps "Event loop is closed" away."""
    log: list[str] = []

    @loop_resource
    async def resource() -> AsyncIterator[int]:
        log.append("open")
        try:
            yield len(log)
        finally:
            log.append("close")

    async def fail() -> None:
        await resource()
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            run_async_in_new_loop(fail)
    assert log == ["open", "close", "open", "close"]


def test_a_resource_that_fails_to_open_is_tried_again() -> None:
    """All who ask at once see the error; the next ask opens."""
    attempts = []

    @loop_resource
    async def flaky() -> AsyncIterator[str]:
        attempts.append(1)
        await asyncio.sleep(0)
        if len(attempts) == 1:
            raise ConnectionError("not yet")
        yield "open"

    async def use() -> list[str | BaseException]:
        failed = await asyncio.gather(flaky(), flaky(), return_exceptions=True)
        return [*failed, await flaky()]

    first, second, third = run_async_in_new_loop(use)
    assert isinstance(first, ConnectionError)
    assert isinstance(second, ConnectionError)
    assert third == "open"
    assert len(attempts) == 2


@BOTH
def test_resources_that_use_async_generators_are_closed_by_their_own_end(run: Run) -> None:
    """Whatever their form, and those inside them: a loop that ends does not close them beneath a resource."""
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def nested(name: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield name
        await asyncio.sleep(0)
        log.append(f"close {name}")

    @loop_resource
    @contextlib.asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        async with nested("in manager") as name:
            yield name
            async with nested("at the end"):
                log.append("ending")
        log.append("close manager")

    @loop_resource
    async def generator() -> AsyncIterator[str]:
        async with nested("in generator") as name:
            yield f"{name} after {await manager()}"
        log.append("close generator")

    assert run(generator) == "in generator after in manager"
    stop_shared_loop()
    assert log == [
        "close in generator",
        "close generator",
        "ending",
        "close at the end",
        "close in manager",
        "close manager",
    ]


@BOTH
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_resource_that_fails_to_close_is_logged_and_harms_no_other(
    run: Run, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """The others are closed, as if nothing had happened, and the result stands."""
    log: list[str] = []

    @loop_resource
    async def first() -> AsyncIterator[str]:
        yield "first"
        log.append("close first")

    @loop_resource
    async def second() -> AsyncIterator[str]:
        yield await first()
        raise error("cannot be closed")

    assert run(second) == "first"
    stop_shared_loop()
    assert log == ["close first"]
    assert "closing failed" in caplog.text
    assert "cannot be closed" in caplog.text


@BOTH
def test_a_resource_that_never_closes_is_cancelled_and_logged_with_its_place(
    run: Run, caplog: pytest.LogCaptureFixture, short_patience: None
) -> None:
    """The work is done: its message must not hang on a client; the other resources are closed."""
    log: list[str] = []

    @loop_resource
    async def first() -> AsyncIterator[str]:
        yield "first"
        log.append("close first")

    @loop_resource
    async def second() -> AsyncIterator[str]:
        yield await first()
        await asyncio.Event().wait()

    assert run(second) == "first"
    stop_shared_loop()
    wait_until(lambda: "closing took too long and was cancelled" in caplog.text)
    wait_until(lambda: log == ["close first"])
    assert "in second" in caplog.text


@BOTH
def test_a_resource_is_closed_after_an_interrupt(run: Run) -> None:
    """With its loop; until then the coroutine's own cleanup may use it."""
    log: list[str] = []
    waiting = threading.Event()

    @loop_resource
    async def resource() -> AsyncIterator[str]:
        yield "resource"
        log.append("closed")

    async def service() -> None:
        await resource()
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append(f"cleaned up with {await resource()}")

    attempt = Attempt(lambda: run(service))
    assert waiting.wait(5)
    stop = Stop("time is up")
    attempt.interrupt(stop)
    assert attempt.result() is stop
    stop_shared_loop()
    assert log == ["cleaned up with resource", "closed"]


@BOTH
def test_a_loop_ends_in_order(run: Run) -> None:
    """Tasks are cancelled and awaited, then async generators, executor and resources end, each before what it needs."""
    log: list[str] = []
    kept: list[object] = []

    @loop_resource
    async def resource() -> AsyncIterator[None]:
        yield
        log.append("resource")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await resource()
            log.append("generator")

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("task")

    async def service() -> None:
        loop = asyncio.get_running_loop()
        shut_down = loop.shutdown_default_executor

        async def shut_down_and_say() -> None:
            log.append("executor")
            await shut_down()

        monkeypatch.setattr(type(loop), "shutdown_default_executor", lambda _: shut_down_and_say())
        await asyncio.to_thread(int)  # an executor that was not used has nothing to end
        await resource()
        generator = numbers()
        assert await anext(generator) == 1
        kept.extend([generator, asyncio.create_task(background())])
        await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as monkeypatch:
        run(service)
        stop_shared_loop()
    assert log == ["task", "generator", "executor", "resource"]


def test_an_interrupt_while_resources_are_closed_leaves_the_call_once_they_are() -> None:
    """It is not lost, and does not cut the closing short."""
    closing, release = threading.Event(), threading.Event()
    log: list[str] = []

    @loop_resource
    async def resource() -> AsyncIterator[None]:
        yield
        closing.set()
        await run_in_thread_pool(release.wait, 5)
        log.append("closed")

    async def service() -> None:
        await resource()

    attempt = Attempt(lambda: run_async_in_new_loop(service))
    assert closing.wait(5)
    stop = Stop("time is up")
    attempt.interrupt(stop)
    release.set()
    assert attempt.result() is stop
    assert log == ["closed"]


@BOTH
def test_refused_settings_are_the_callers_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a loop; nothing hangs, and no coroutine is left that nobody awaited."""
    stop_shared_loop()
    monkeypatch.setattr(watchdog, "_watchdog", None)
    before = Settings.in_force()
    monkeypatch.setenv("WORKER_BLOCKING", "sometimes")
    put_in_force(None)
    try:
        for work in (answer, answer()):
            with pytest.raises(ConfigurationError, match="WORKER_BLOCKING=sometimes"):
                run(work)
    finally:
        put_in_force(before)
    gc.collect()


def test_an_asker_who_is_cancelled_does_not_take_the_opening_from_the_others() -> None:
    """The resource opens for those who still wait."""

    @loop_resource
    async def slow() -> AsyncIterator[str]:
        await asyncio.sleep(0.01)
        yield "open"

    async def use() -> str:
        impatient = asyncio.create_task(_ask(slow))
        patient = asyncio.create_task(_ask(slow))
        await asyncio.sleep(0)
        impatient.cancel()
        return await patient

    assert run_async_in_new_loop(use) == "open"


async def _ask(resource: Callable[[], Awaitable[str]]) -> str:
    return await resource()
