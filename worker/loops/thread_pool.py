"""One pool of threads in each process, for blocking calls made by coroutines.

Its threads are daemons: unlike those of `concurrent.futures`, they cannot keep the process from ending. Nothing is made
before the first call, and a forked child makes a pool of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import functools
import inspect
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from worker.ground.logs import get_logger
from worker.loops.account import account
from worker.loops.callables import is_async
from worker.settings import Settings
from worker.threads.os_threads import new_condition, new_lock, start_thread

P = ParamSpec("P")
R = TypeVar("R")

logger = get_logger(__name__)

EXIT_TIMEOUT = 2.0
"""Seconds that running calls may still take when the process ends."""

# Share of `WORKER_CLEANUP_TIMEOUT` that a cancelled coroutine waits for a thread: it may have more to clean up.
_SHARE = 0.9

_cancelled: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("cancelled", default=None)


def cancel_requested() -> bool:
    """Whether the coroutine that awaits this call was cancelled. A long function asks now and then, and ends early.

    It is always False outside `run_in_thread_pool`.
    """
    event = _cancelled.get()
    return event is not None and event.is_set()


async def run_in_thread_pool(func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs a blocking function in the process's thread pool and awaits its result.

    The function sees the caller's contextvars. If the awaiting task is cancelled, a waiting call never starts. In a
    running call `cancel_requested()` becomes True, and the await lasts until the call has ended, at most nine tenths of
    `WORKER_CLEANUP_TIMEOUT`. In a worker the attempt still lasts until the function has ended, so that two attempts
    never work at once.

    Raises:
        TypeError: `func` is async, or returned a coroutine: await it instead.
    """
    if is_async(func):
        raise _async_refused(func)
    flag = threading.Event()
    context = contextvars.copy_context()
    context.run(_cancelled.set, flag)
    future = pool().submit(functools.partial(context.run, _call, func, args, kwargs))
    waiter = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiter)
    except asyncio.CancelledError:
        if not future.cancel():
            flag.set()
            _outlives(future)
            await asyncio.wait([waiter], timeout=_SHARE * Settings.in_force().cleanup_timeout.total_seconds())
            if not future.done():
                logger.warning("a call in the thread pool goes on although it was cancelled", function=repr(func))
        # Marks an error as seen: its caller is gone.
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
    finally:
        del future, waiter  # they have an error whose traceback has this frame


def _outlives(future: concurrent.futures.Future[Any]) -> None:
    """Makes the running attempt last until the call has ended."""
    own = account.get()
    if own is not None:
        own.add_unfinished(future)


def _call(func: Callable[P, R], args: Any, kwargs: Any) -> R:  # noqa: ANN401 - the function's arguments
    result = func(*args, **kwargs)
    if inspect.iscoroutine(result):
        result.close()
        raise _async_refused(func)
    return result


def _async_refused(func: Callable[..., object]) -> TypeError:
    name = getattr(func, "__qualname__", repr(func))
    return TypeError(f"{name} is async: await it instead of running it in the thread pool")


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """The use of the pool at one moment.

    Attributes:
        size: The most threads.
        busy: Threads that run a call.
        waiting: Calls that wait for a thread.
        longest_wait: Seconds that the oldest waiting call has waited; 0 if there is none.
    """

    size: int
    busy: int
    waiting: int
    longest_wait: float


class ThreadPool:
    """Up to `size` daemon threads, started as calls need them.

    Args:
        size: The most threads, and so the most calls that run at once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._calls: deque[tuple[concurrent.futures.Future[Any], Callable[[], Any], float]] = deque()
        self._changed = new_condition()
        self._threads = 0
        self._idle = 0
        self._busy = 0
        self._closed = False

    def submit(self, call: Callable[[], R]) -> concurrent.futures.Future[R]:
        """Queues a call; the future has its result, and can cancel it until it starts.

        Raises:
            RuntimeError: The process is ending.
        """
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the thread pool is closed: the process is ending")
            self._calls.append((future, call, time.monotonic()))
            if self._idle < len(self._calls) and self._threads < self.size:
                self._threads += 1
                start_thread(self._work, f"pool-{self._threads}")
            else:
                self._changed.notify()
        return future

    def usage(self) -> PoolUsage:
        """The use of the pool now."""
        with self._changed:
            # A cancelled call is still in the line, and takes no time at its turn.
            waits = [since for future, _, since in self._calls if not future.cancelled()]
            longest = time.monotonic() - waits[0] if waits else 0.0
            return PoolUsage(self.size, self._busy, len(waits), longest)

    def close(self, timeout: float) -> bool:
        """Refuses new calls, drops the waiting ones, and waits at most `timeout` seconds for the running ones.

        Returns:
            True if all have ended.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            for future, _, _ in self._calls:
                future.cancel()
            self._calls.clear()
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._threads == 0, max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            _run(*taken)
            with self._changed:
                self._busy -= 1
            # Otherwise this frame would keep the last call's result alive.
            del taken

    def _take(self) -> tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._idle += 1
            while not self._calls and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if self._calls:
                future, call, _ = self._calls.popleft()
                self._busy += 1
                return future, call
            self._threads -= 1
            self._changed.notify_all()
            return None


def _run(future: concurrent.futures.Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - an edge: the awaiting caller gets it
        future.set_exception(error)
        del future  # it has the error, whose traceback has this frame
    else:
        future.set_result(result)


_pool: ThreadPool | None = None
_pool_lock = new_lock()


def pool() -> ThreadPool:
    """The process's pool, made at its first use, with at most `WORKER_THREAD_POOL_SIZE` threads."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPool(Settings.in_force().thread_pool_size)
        return _pool


def _close_pool() -> None:
    # A forked child has no pool until it makes one: it must not wait for its parent's threads.
    if _pool is not None:
        _pool.close(EXIT_TIMEOUT)


atexit.register(_close_pool)


def _forget_pool() -> None:
    # A forked child has none of its parent's threads.
    global _pool, _pool_lock
    _pool, _pool_lock = None, new_lock()


os.register_at_fork(after_in_child=_forget_pool)
