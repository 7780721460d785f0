"""`asyncio.to_thread` and `run_in_executor(None, …)` on our loops keep the promises of the thread pool."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
import structlog.testing

from tests.support.loops import use_loops_of
from tests.support.waiting import wait_until
from worker import actor, run_in_thread_pool
from worker.bridge import cancel_requested, run_async_in_new_loop, run_async_in_shared_loop, stop_shared_loop
from worker.loops import thread_pool
from worker.loops.thread_pool import ThreadPool
from worker.settings import Settings
from worker.testing import StubWorker, stub_worker

Run = Callable[[Callable[[], Awaitable[Any]]], Any]

BOTH = pytest.mark.parametrize("run", [run_async_in_new_loop, run_async_in_shared_loop])
LOOPS = pytest.mark.parametrize("loop", ["new", "shared"])
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True, params=["asyncio", "uvloop"])
def _kind_of_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Loops that we make ourselves, and those of another library."""
    stop_shared_loop()
    use_loops_of(request.param)
    yield
    stop_shared_loop()
    use_loops_of("asyncio")


async def in_executor(function: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function)


CALLS = pytest.mark.parametrize("call", [asyncio.to_thread, in_executor])


def quick(**changes: timedelta) -> Settings:
    """Settings with which nothing takes long."""
    short = {"cleanup_timeout": timedelta(milliseconds=50), "min_backoff": timedelta(milliseconds=1)}
    return Settings.in_force().model_copy(update=short | changes)


def run_limited(stub: StubWorker, loop: Any, work: Callable[[], None], *, retries: int) -> None:
    """Runs a message whose attempts take longer than their limit in a blocking call."""

    @actor(time_limit="100ms", max_retries=retries, loop=loop)
    async def blocks() -> None:
        await asyncio.to_thread(work)

    blocks.send()
    stub.join()
    del stub.broker.actors["blocks"]


def waits_in(logged: Sequence[Mapping[str, Any]]) -> list[str]:
    """The functions for which an attempt waits, or waited, longer than it wanted."""
    return [line["function"] for line in list(logged) if line["event"].startswith("an attempt waits for")]


@LOOPS
def test_attempts_never_work_at_once_although_their_blocking_calls_outlast_the_time_limit(loop: str) -> None:
    """Three attempts, one after another: each lasts until its thread has ended."""
    working: list[int] = []
    at_once = []

    def work() -> None:
        working.append(1)
        at_once.append(len(working))
        wait_until(lambda: len(waits_in(logged)) == len(at_once) or len(working) > 1)
        working.pop()

    with structlog.testing.capture_logs() as logged, stub_worker(settings=quick()) as stub:
        run_limited(stub, loop, work, retries=2)
    assert at_once == [1, 1, 1]
    assert working == []
    assert stub.states() == ["started", "failed"] * 3


@LOOPS
def test_a_call_that_cannot_be_stopped_is_told_with_its_name(loop: str) -> None:
    """In the log while it goes on, and in the event that ends the attempt."""

    def works_on() -> None:
        wait_until(lambda: waits_in(logged))

    with structlog.testing.capture_logs() as logged, stub_worker(settings=quick()) as stub:
        run_limited(stub, loop, works_on, retries=0)
    assert [name.rpartition(".")[2] for name in waits_in(logged)] == ["works_on"]
    text = list(stub.events)[-1].text
    assert "waited " in text
    assert "works_on, which cannot be stopped" in text


@BOTH
@CALLS
def test_a_function_that_asks_hears_of_its_cancellation(run: Run, call: Callable[..., Awaitable[None]]) -> None:
    """`cancel_requested()` turns true, as in `run_in_thread_pool`."""
    started, told = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        wait_until(cancel_requested)
        told.set()

    async def service() -> None:
        task = asyncio.ensure_future(call(work))
        assert await run_in_thread_pool(started.wait, 20)
        task.cancel()
        assert await run_in_thread_pool(told.wait, 20)

    run(service)


@BOTH
@CALLS
def test_a_function_sees_the_callers_contextvars(run: Run, call: Callable[..., Awaitable[None]]) -> None:
    """So `current_attempt()` and the fields of log lines are there."""
    VARIABLE.set("mine")
    seen = []

    async def service() -> None:
        await call(lambda: seen.append(VARIABLE.get()))

    run(service)
    assert seen == ["mine"]


@BOTH
def test_look_ups_of_names_go_on_while_blocking_calls_hold_every_thread(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have threads of their own."""
    monkeypatch.setattr(thread_pool, "_pool", ThreadPool(1))
    release = threading.Event()

    async def service() -> list[object]:
        loop = asyncio.get_running_loop()
        blocking = [asyncio.ensure_future(asyncio.to_thread(release.wait, 20)) for _ in range(3)]
        try:
            found: list[object] = [bool(await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM))]
            found.append((await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))[1])
            found += [call.done() for call in blocking]
        finally:
            release.set()
        await asyncio.gather(*blocking)
        return found

    assert run(service) == [True, "80", False, False, False]


@BOTH
def test_blocking_calls_use_the_threads_of_the_pool(run: Run) -> None:
    """At most as many at once as its size, with the others."""

    async def service() -> str:
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert run(service).startswith("pool-")


@pytest.mark.parametrize("run", ["run_async_in_new_loop", "run_async_in_shared_loop"])
@pytest.mark.parametrize("end", ["await hanging", "await asyncio.sleep(0.05)"])
def test_a_call_that_hangs_does_not_keep_a_program_from_ending(run: str, end: str) -> None:
    """Whether or not somebody waits for it; what it is called is told."""
    script = f"""
import asyncio, threading
from datetime import timedelta
from worker import bridge
from worker.settings import Settings
from worker.settings.groups import put_in_force
put_in_force(Settings.in_force().model_copy(update={{"cleanup_timeout": timedelta(milliseconds=50)}}))
async def main():
    hanging = asyncio.ensure_future(asyncio.to_thread(threading.Event().wait))
    {end}
try:
    bridge.{run}(main, timeout=0.2)
except TimeoutError:
    print("too late")
print("out", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("\n")[-2:] == ["out", ""]
