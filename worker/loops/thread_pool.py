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
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from worker.ground.logs import get_logger
from worker.ground.texts import shown
from worker.loops.account import own_account
from worker.loops.callables import is_async
from worker.settings import Settings
from worker.threads.greenlets import original
from worker.threads.os_threads import new_condition, new_lock, start_thread

P = ParamSpec("P")
R = TypeVar("R")

logger = get_logger(__name__)

EXIT_TIMEOUT = 2.0
"""Seconds that running calls may still take when the process ends."""

# Share of `WORKER_CLEANUP_TIMEOUT` that a cancelled coroutine waits for a thread: it may have more to clean up.
_SHARE = 0.9

_LOOK_UPS = 16
"""The most look-ups of names at once."""

_here = original("_thread", "_local")()


def cancel_requested() -> bool:
    """Whether the coroutine that awaits this call was cancelled. A long function asks now and then, and ends early.

    It is always False outside the pool's threads.
    """
    call: PoolCall[Any] | None = getattr(_here, "call", None)
    return call is not None and call.cancel_requested


async def run_in_thread_pool(func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs a blocking function in the process's thread pool and awaits its result.

    The function sees the caller's contextvars. If the awaiting task is cancelled, a waiting call never starts. In a
    running call `cancel_requested()` becomes True, and the await lasts until the call has ended, at most nine tenths of
    `WORKER_CLEANUP_TIMEOUT`. In a worker the attempt still lasts until the function has ended, so that two attempts
    never work at once.

    Raises:
        TypeError: `func` is async, or returned a coroutine: await it instead. Or it is no function.
    """
    if not callable(func):
        raise TypeError(f"{shown(repr(func))} is no function: pass it and its arguments, as in (read, path)")
    if is_async(func):
        raise _async_refused(func)
    function = functools.partial(contextvars.copy_context().run, _call, func, args, kwargs)
    call = pool().submit(function, name_of(func))
    waiter = asyncio.wrap_future(call)
    try:
        return await asyncio.shield(waiter)
    except asyncio.CancelledError:
        if not call.cancel():
            await asyncio.wait([waiter], timeout=_SHARE * Settings.in_force().cleanup_timeout.total_seconds())
            if not call.done():
                logger.warning("a call in the thread pool goes on although it was cancelled", function=call.name)
        # Marks an error as seen: its caller is gone.
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
    finally:
        del call, waiter  # they have an error whose traceback has this frame


def name_of(function: Any) -> str:  # noqa: ANN401 - whatever is called
    """The name of a function as logs and texts tell it, without its arguments."""
    while isinstance(function, functools.partial):
        runs_in_context = isinstance(getattr(function.func, "__self__", None), contextvars.Context)
        function = function.args[0] if runs_in_context and function.args else function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"


def _call(func: Callable[P, R], args: Any, kwargs: Any) -> R:  # noqa: ANN401 - the function's arguments
    result = func(*args, **kwargs)
    if inspect.iscoroutine(result):
        result.close()
        raise _async_refused(func)
    return result


def _async_refused(func: Callable[..., object]) -> TypeError:
    name = getattr(func, "__qualname__", repr(func))
    return TypeError(f"{name} is async: await it instead of running it in the thread pool")


class PoolCall(concurrent.futures.Future[R]):
    """A call in the pool. If it runs when it is cancelled, its attempt lasts until it has ended.

    Args:
        name: The function's name.

    Attributes:
        cancel_requested: Whether it was cancelled while it ran.
        attempt_waits: Whether its attempt waits for its end.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.cancel_requested = False
        self.attempt_waits = False
        self._account = own_account()

    def cancel(self) -> bool:
        """Cancels the call if it still waits for a thread; False if it runs, and is only asked to end, or has ended."""
        if super().cancel():
            return True
        if not self.cancel_requested and not self.done():
            self.cancel_requested = True
            if self._account is not None:
                self.attempt_waits = True
                self._account.add_unfinished(self, self.name)
        return False


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
        name: The name of its threads.
    """

    def __init__(self, size: int, name: str = "pool") -> None:
        self.size = size
        self._name = name
        self._calls: deque[tuple[PoolCall[Any], Callable[[], Any], float]] = deque()
        self._changed = new_condition()
        self._threads = 0
        self._idle = 0
        self._busy = 0
        self._closed = False

    def submit(self, call: Callable[[], R], name: str = "") -> PoolCall[R]:
        """Queues a call; the future has its result, and can cancel it until it starts.

        Raises:
            RuntimeError: The process is ending.
        """
        future: PoolCall[R] = PoolCall(name)
        with self._changed:
            if self._closed:
                raise RuntimeError("the thread pool is closed: the process is ending")
            self._calls.append((future, call, time.monotonic()))
            if self._idle < len(self._calls) and self._threads < self.size:
                self._threads += 1
                start_thread(self._work, f"{self._name}-{self._threads}")
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

    def _take(self) -> tuple[PoolCall[Any], Callable[[], Any]] | None:
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


def _run(future: PoolCall[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    _here.call = future
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - an edge: the awaiting caller gets it
        future.set_exception(error)
        del future  # it has the error, whose traceback has this frame
    else:
        future.set_result(result)
    finally:
        _here.call = None


_pool: ThreadPool | None = None
_look_ups: ThreadPool | None = None
_pool_lock = new_lock()


def pool() -> ThreadPool:
    """The process's pool, made at its first use, with at most `WORKER_THREAD_POOL_SIZE` threads."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPool(Settings.in_force().thread_pool_size)
        return _pool


def look_ups() -> ThreadPool:
    """The process's threads for look-ups of names, which blocking calls never hold up; made at their first use."""
    global _look_ups
    with _pool_lock:
        if _look_ups is None:
            _look_ups = ThreadPool(_LOOK_UPS, "look-up")
        return _look_ups


def _close_pool() -> None:
    # A forked child has no pool until it makes one: it must not wait for its parent's threads.
    if _pool is not None:
        _pool.close(EXIT_TIMEOUT)


atexit.register(_close_pool)


def _forget_pool() -> None:
    # A forked child has none of its parent's threads.
    global _pool, _look_ups, _pool_lock
    _pool, _look_ups, _pool_lock = None, None, new_lock()


os.register_at_fork(after_in_child=_forget_pool)
