"""Interrupts arrive, in order, and leave the call as themselves; on both loops, asyncio's own and uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from dramatiq.middleware.threading import Interrupt

from tests.support.attempts import Attempt, Stop, attempt_run, short_patience
from tests.support.loops import use_loops_of
from tests.support.waiting import wait_until
from worker import bridge
from worker.attempts.run import AttemptRun
from worker.attempts.running import RunningAttempts
from worker.bridge import run_async_in_new_loop, run_async_in_shared_loop, stop_shared_loop
from worker.errors import SelfCancelledError
from worker.loops.interrupts import current_section

Run = Callable[..., Any]

__all__ = ["short_patience"]

# An exception set from another thread can land in a weakref's callback, where Python can only report it.
STRAY = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

BOTH = pytest.mark.parametrize("run", [run_async_in_new_loop, run_async_in_shared_loop])


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def _each_kind_of_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    stop_shared_loop()
    use_loops_of(request.param)
    yield
    stop_shared_loop()
    use_loops_of("asyncio")


async def idles() -> None:
    await asyncio.Event().wait()


async def busy_with_callbacks() -> None:
    while True:  # noqa: ASYNC110 - keeping the loop busy is the point
        await asyncio.sleep(0)


async def waits_for_a_busy_sibling() -> None:
    sibling = asyncio.create_task(busy_with_callbacks())
    try:
        await asyncio.Event().wait()
    finally:
        sibling.cancel()


@pytest.mark.clock
@BOTH
@pytest.mark.parametrize("service", [idles, busy_with_callbacks, waits_for_a_busy_sibling])
def test_an_interrupt_cancels_the_coroutine_within_100_ms(run: Run, service: Callable[[], Awaitable[None]]) -> None:
    """While the loop idles in `select`, while it is busy, while a sibling runs."""
    started = threading.Event()
    cleaned_up = []

    async def body() -> None:
        started.set()
        try:
            await service()
        finally:
            await asyncio.sleep(0)
            cleaned_up.append(True)

    attempt = Attempt(lambda: run(body))
    assert started.wait(5)
    stop = Stop("time is up")
    at = attempt.interrupt(stop)
    assert attempt.result() is stop
    assert attempt.ended_at - at < 0.1
    assert cleaned_up == [True]


@BOTH
def test_async_with_blocks_run_awaits_included(run: Run) -> None:
    """A transaction is rolled back, a lock released."""
    started, log = threading.Event(), list[str]()

    @contextlib.asynccontextmanager
    async def transaction() -> Any:
        try:
            yield
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            log.append("rolled back")
            raise

    async def body() -> None:
        async with transaction():
            started.set()
            await asyncio.Event().wait()

    attempt = Attempt(lambda: run(body))
    assert started.wait(5)
    attempt.interrupt()
    assert isinstance(attempt.result(), Stop)
    assert log == ["rolled back"]


@BOTH
def test_the_original_interrupt_leaves_even_if_the_cleanup_fails(run: Run) -> None:
    """The cleanup's error is its cause."""
    started = threading.Event()

    async def body() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("cleanup")

    attempt = Attempt(lambda: run(body))
    assert started.wait(5)
    attempt.interrupt()
    outcome = attempt.result()
    assert isinstance(outcome, Stop)
    assert isinstance(outcome.__cause__, ValueError)


@BOTH
def test_a_coroutine_that_swallows_its_cancellation_and_ends_is_interrupted_all_the_same(run: Run) -> None:
    """The interrupt leaves the call, not the result."""
    started = threading.Event()

    async def body() -> str:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "swallowed"

    attempt = Attempt(lambda: run(body))
    assert started.wait(5)
    attempt.interrupt()
    assert isinstance(attempt.result(), Stop)


@pytest.mark.usefixtures("short_patience")
def test_a_coroutine_that_never_ends_is_reported_and_its_loop_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """Logged with its stack, counted, and named in the interrupt that leaves the call."""
    started, before = threading.Event(), bridge.overruns()

    async def stubborn() -> None:
        started.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)

    attempt = Attempt(lambda: run_async_in_new_loop(stubborn))
    assert started.wait(5)
    attempt.interrupt()
    outcome = attempt.result()
    assert isinstance(outcome, Stop)
    assert "stubborn" in "".join(outcome.__notes__)
    assert "did not end within 0.1 s" in caplog.text
    assert bridge.overruns() == before + 1


@pytest.mark.usefixtures("short_patience")
def test_a_callback_that_blocks_the_loop_is_interrupted_as_dramatiq_does() -> None:
    """When the thread next runs Python."""
    started = threading.Event()

    async def blocks() -> None:
        started.set()
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 - the defect itself

    attempt = Attempt(lambda: run_async_in_new_loop(blocks))
    assert started.wait(5)
    attempt.interrupt()
    assert isinstance(attempt.result(), Stop)


@pytest.mark.usefixtures("short_patience")
def test_on_the_shared_loop_the_call_lasts_until_the_task_has_really_ended(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else gets the message meanwhile; it is reported."""
    started, release = threading.Event(), threading.Event()

    async def stubborn() -> None:
        started.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    attempt = Attempt(lambda: run_async_in_shared_loop(stubborn))
    assert started.wait(5)
    attempt.interrupt()
    wait_until(lambda: "did not end within" in caplog.text)
    assert attempt.outcome == []
    release.set()
    assert isinstance(attempt.result(), Stop)


def test_a_plain_sync_body_is_interrupted_in_its_thread() -> None:
    """As Dramatiq does."""
    started = threading.Event()

    def body() -> None:
        started.set()
        while True:
            time.sleep(0.001)

    attempt = Attempt(body)
    assert started.wait(5)
    attempt.interrupt()
    assert isinstance(attempt.result(), Stop)


def test_an_interrupt_after_the_end_of_the_body_is_dropped() -> None:
    """One that lands in the acknowledgement kills Dramatiq's worker threads for good."""
    ended, interrupted = threading.Event(), threading.Event()
    run = attempt_run()
    survived = []
    sections = []

    def body() -> str:
        sections.append(current_section())
        return "done"

    def thread() -> None:
        survived.append(run.run_body(body))
        ended.set()
        interrupted.wait(5)
        for _ in range(1000):
            time.sleep(0)
        survived.append("acknowledged")

    worker = threading.Thread(target=thread)
    worker.start()
    assert ended.wait(5)
    assert not run.interrupt(Stop())
    [section] = sections
    assert section is not None
    assert not section.interrupt(Stop())
    interrupted.set()
    worker.join(5)
    assert survived == ["done", "acknowledged"]


def test_an_interrupt_before_the_body_is_raised_as_it_begins() -> None:
    """The body does not run."""
    run, ran = attempt_run(), []
    stop = Stop("before")
    assert run.interrupt(stop)
    with pytest.raises(Stop) as raised:
        run.run_body(lambda: ran.append(True))
    assert raised.value is stop
    assert ran == []


def runs_of(body: Callable[[], object], count: int, pause: Callable[[], object]) -> list[object]:
    """What comes out of as many attempts, one after another in a thread, while each is interrupted all the time."""
    outcomes: list[object] = []
    current: list[AttemptRun] = [attempt_run()]
    finished = threading.Event()

    def work() -> None:
        for _ in range(count):
            current[0] = run = attempt_run()
            try:
                outcomes.append(run.run_body(body))
            except Stop as stop:
                outcomes.append(stop)
        finished.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not finished.is_set():
        current[0].interrupt(Stop())
        pause()
    worker.join(10)
    return outcomes


@STRAY
def test_interrupts_at_any_moment_hit_the_body_or_nothing() -> None:
    """Many bodies as short as can be, interrupted all the time: each returns or is interrupted, no thread dies."""
    outcomes = runs_of(lambda: sum(range(50)), 5_000, lambda: None)
    assert len(outcomes) == 5_000
    assert {type(outcome) for outcome in outcomes} <= {int, Stop}


@STRAY
@BOTH
def test_interrupts_at_any_moment_of_a_bridged_call_hit_the_body_or_nothing(run: Run) -> None:
    """Before, in and after the call: the outcome is the result or the interrupt, and no coroutine is left."""

    async def service() -> str:
        await asyncio.sleep(0)
        return "done"

    outcomes = runs_of(lambda: run(service), 500, lambda: time.sleep(0.0002))
    assert len(outcomes) == 500
    assert {type(outcome) for outcome in outcomes} <= {str, Stop}


def test_only_the_first_interrupt_counts() -> None:
    """A shutdown does not overtake a time limit."""
    started = threading.Event()

    async def body() -> None:
        started.set()
        await asyncio.Event().wait()

    attempt = Attempt(lambda: run_async_in_new_loop(body))
    assert started.wait(5)
    first = Stop("first")
    attempt.interrupt(first)
    attempt.run.interrupt(Stop("second"))
    assert attempt.result() is first


def test_a_coroutine_that_cancels_itself_under_a_section_is_a_typed_error() -> None:
    """It is not an interrupt."""

    async def cancel_myself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    assert isinstance(Attempt(lambda: run_async_in_new_loop(cancel_myself)).result(), SelfCancelledError)


def test_a_deadline_interrupts_its_attempt_as_long_as_that_runs() -> None:
    """Also one that is due before the body has begun; the earliest counts."""
    running = RunningAttempts()
    running.start()
    log: list[str] = []

    def attempt(name: str, *seconds: float, ends: bool) -> None:
        run = attempt_run()
        running.add(run)
        for one in seconds:
            running.limit(run, one, Interrupt)
        if ends:
            running.remove(run)
        with contextlib.suppress(Interrupt):
            run.run_body(lambda: run_async_in_new_loop(asyncio.sleep(0.1)))
            log.append(f"{name} ended")
        running.remove(run)

    cases = [
        ("due", (0.0,), False),
        ("soon", (5.0, 0.02, 5.0), False),
        ("gone", (0.02,), True),
        ("late", (5.0,), False),
    ]
    threads = [threading.Thread(target=attempt, args=(n, *s), kwargs={"ends": e}) for n, s, e in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    running.stop()
    assert sorted(log) == ["gone ended", "late ended"]
