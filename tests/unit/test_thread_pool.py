"""Blocking calls from async code."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from tests.support.waiting import wait_until
from worker import actor, run_in_thread_pool
from worker.bridge import cancel_requested
from worker.loops.thread_pool import ThreadPool
from worker.settings import Settings
from worker.testing import stub_worker

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def coroutine_function() -> int:
    return 1


class AsyncCallable:
    async def __call__(self) -> int:
        return 1


async def test_a_call_runs_in_a_thread_with_positional_and_keyword_arguments() -> None:
    """And its result is awaited."""

    def add(a: int, *, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    total, thread = await run_in_thread_pool(add, 1, b=2)
    assert total == 3
    assert thread != threading.get_ident()


async def test_the_callers_contextvars_are_visible() -> None:
    """And what the call sets stays in the call."""
    VARIABLE.set("mine")

    def look() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("changed")
        return seen

    assert await run_in_thread_pool(look) == "mine"
    assert VARIABLE.get() == "mine"


async def test_errors_come_back_as_they_are() -> None:
    """With the traceback of the call."""
    with pytest.raises(ZeroDivisionError):
        await run_in_thread_pool(lambda: 1 // 0)


@pytest.mark.parametrize(
    "func",
    [
        coroutine_function,
        functools.partial(coroutine_function),
        functools.partial(functools.partial(coroutine_function)),
        lambda: coroutine_function(),
        AsyncCallable(),
        functools.partial(AsyncCallable()),
        AsyncCallable().__call__,
    ],
)
async def test_anything_async_is_refused(func: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Coroutines would never run there, and nobody would notice; no warning is left either."""
    with pytest.raises(TypeError, match="await it"):
        _ = await run_in_thread_pool(func)


async def test_a_call_that_waits_is_dropped_when_cancelled() -> None:
    """It never starts."""
    pool = ThreadPool(1)
    release = threading.Event()
    first = pool.submit(release.wait)
    ran = []
    second = pool.submit(lambda: ran.append(1))
    assert second.cancel()
    release.set()
    assert first.result(5)
    assert pool.close(5)
    assert ran == []


async def test_a_call_that_runs_is_told_of_its_cancellation_and_awaited() -> None:
    """`cancel_requested()` turns true, and the await lasts until the function has ended."""
    started, ended = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        while not cancel_requested():
            time.sleep(0.001)
        ended.set()

    task = asyncio.create_task(run_in_thread_pool(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert not cancel_requested()


async def test_an_error_after_the_cancellation_leaves_no_warning() -> None:
    """Nobody waits for it any more, and asyncio must not complain of that."""
    started = threading.Event()

    def work() -> None:
        started.set()
        while not cancel_requested():
            time.sleep(0.001)
        raise RuntimeError("stopped")

    task = asyncio.create_task(run_in_thread_pool(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_threads_are_made_as_needed_and_not_beyond_the_size() -> None:
    """Three at once of five calls, all done."""
    pool = ThreadPool(3)
    running, lock, release = [0, 0], threading.Lock(), threading.Event()

    def work() -> None:
        with lock:
            running[0] += 1
            running[1] = max(running)
        release.wait(5)
        with lock:
            running[0] -= 1

    futures = [pool.submit(work) for _ in range(5)]
    wait_until(lambda: running[0] == 3)
    release.set()
    for future in futures:
        future.result(5)
    assert running == [0, 3]
    assert pool.close(5)


def test_an_idle_thread_is_used_again() -> None:
    """One thread serves calls that come one after another."""
    pool = ThreadPool(10)
    idents = set()
    for _ in range(20):
        idents.add(pool.submit(threading.get_ident).result(5))
        wait_until(lambda: pool._idle == 1)
    assert len(idents) == 1
    assert pool.close(5)


def test_a_closed_pool_refuses_calls() -> None:
    """The process is ending."""
    pool = ThreadPool(1)
    assert pool.close(1)
    with pytest.raises(RuntimeError, match="ending"):
        pool.submit(time.monotonic)


def test_a_call_that_hangs_does_not_keep_the_process_from_ending() -> None:
    """Unlike the threads of concurrent.futures."""
    script = (
        "import asyncio, threading, worker\n"
        "async def main():\n"
        "    asyncio.ensure_future(worker.run_in_thread_pool(threading.Event().wait))\n"
        "    await asyncio.sleep(0.05)\n"
        "    print('out', flush=True)\n"
        "loop = asyncio.new_event_loop(); loop.run_until_complete(main())\n"
        "import os, sys; sys.stderr = open(os.devnull, 'w')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert ended.returncode == 0
    assert ended.stdout == b"out\n"


def test_a_forked_child_has_a_pool_of_its_own() -> None:
    """Its parent's threads do not exist in it."""
    assert asyncio.run(_in_pool()) != threading.get_ident()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if asyncio.run(asyncio.wait_for(_in_pool(), 5)) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def _in_pool() -> int:
    return await run_in_thread_pool(threading.get_ident)


def test_how_busy_the_pool_is_can_be_seen() -> None:
    """Threads busy, calls waiting, and the longest wait."""
    pool = ThreadPool(2)
    release = threading.Event()
    futures = [pool.submit(release.wait) for _ in range(5)]
    wait_until(lambda: pool.usage().busy == 2)
    assert futures[4].cancel()
    usage = pool.usage()
    assert (usage.size, usage.busy, usage.waiting) == (2, 2, 2)
    wait_until(lambda: pool.usage().longest_wait > usage.longest_wait > 0)
    release.set()
    for future in futures[:4]:
        future.result(5)
    wait_until(lambda: pool.usage().busy == 0)
    assert (pool.usage().waiting, pool.usage().longest_wait) == (0, 0)
    assert pool.close(5)


def test_two_attempts_never_work_at_once_although_a_call_ignores_its_cancellation() -> None:
    """The attempt lasts until the thread has ended, and only then is the message retried."""
    before = Settings.in_force()
    quick = {"cleanup_timeout": timedelta(milliseconds=20), "min_backoff": timedelta(milliseconds=1)}
    working: list[int] = []
    at_once = []

    def work() -> None:
        working.append(1)
        at_once.append(len(working))
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            time.sleep(0.01)
        working.pop()

    with stub_worker(settings=before.model_copy(update=quick)) as stub:

        @actor(time_limit="50ms", max_retries=1, loop="new")
        async def stubborn() -> None:
            await run_in_thread_pool(work)

        stubborn.send()
        stub.join()
        del stub.broker.actors["stubborn"]
    assert at_once == [1, 1]
    assert working == []
    assert stub.states() == ["started", "failed", "started", "failed"]


@pytest.mark.clock
async def test_fifty_users_with_ten_blocking_calls_each_leave_the_loop_responsive() -> None:
    """None sees a time-out, and a health check beside them answers within 50 ms at the 99th percentile."""
    done = asyncio.Event()
    answers: list[float] = []

    async def health() -> None:
        while not done.is_set():
            asked = time.monotonic()
            await asyncio.sleep(0.002)
            answers.append(time.monotonic() - asked - 0.002)

    async def user() -> None:
        for _ in range(10):
            await asyncio.wait_for(run_in_thread_pool(time.sleep, 0.05), 5)

    check = asyncio.create_task(health())
    await asyncio.gather(*(user() for _ in range(50)))
    done.set()
    await check
    assert sorted(answers)[int(len(answers) * 0.99)] < 0.05
