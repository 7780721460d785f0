"""One pool of threads a process for blocking calls made by coroutines.

Its threads are daemons: what still runs in them when the process ends cannot keep it from ending, as the threads of
`concurrent.futures` do. Nothing is made before the first call, and nothing made before a `fork` is used after it.
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
from typing import Any, ParamSpec, TypeVar

from worker.callables import is_async
from worker.settings import settings_in_force

P = ParamSpec("P")
R = TypeVar("R")

EXIT_TIMEOUT = 2.0
"""Seconds that calls still running get when the process ends."""

_cancelled: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("cancelled", default=None)


def cancel_requested() -> bool:
    """Whether the coroutine that awaits this call in the pool was cancelled: a long function asks now and then.

    Always False outside `run_in_thread_pool`.
    """
    event = _cancelled.get()
    return event is not None and event.is_set()


async def run_in_thread_pool(func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs a blocking function in the process's thread pool and awaits its result.

    The function sees the caller's contextvars. If the awaiting task is cancelled, a call that has not started never
    does; for one that runs, `cancel_requested()` turns true, and the await lasts until it has ended, at most
    `WORKER_CLEANUP_TIMEOUT`.

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
            await asyncio.wait([waiter], timeout=settings_in_force().cleanup_timeout.total_seconds())
        # Marks an error as seen: whoever waited for it is gone.
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


def _call(func: Callable[P, R], args: Any, kwargs: Any) -> R:  # noqa: ANN401 - as P hands them over
    result = func(*args, **kwargs)
    if inspect.iscoroutine(result):
        result.close()
        raise _async_refused(func)
    return result


def _async_refused(func: Callable[..., object]) -> TypeError:
    name = getattr(func, "__qualname__", repr(func))
    return TypeError(f"{name} is async: await it instead of running it in the thread pool")


class ThreadPool:
    """Up to `size` daemon threads, started as calls need them.

    Args:
        size: The most threads, and so the most calls that run at once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._calls: deque[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, call: Callable[[], R]) -> concurrent.futures.Future[R]:
        """Queues a call; the future tells its result, and can cancel it until it starts.

        Raises:
            RuntimeError: The process is ending.
        """
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the thread pool is closed: the process is ending")
            self._calls.append((future, call))
            if self._idle < len(self._calls) and self._threads < self.size:
                self._threads += 1
                threading.Thread(target=self._work, name=f"pool-{self._threads}", daemon=True).start()
            else:
                self._changed.notify()
        return future

    def close(self, timeout: float) -> bool:
        """Takes no more calls, drops those that wait, and gives those that run `timeout` seconds.

        Returns:
            Whether all had ended.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            for future, _ in self._calls:
                future.cancel()
            self._calls.clear()
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._threads == 0, max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            _run(*taken)
            # A frame that lingers here would keep the last call's result alive.
            del taken

    def _take(self) -> tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._idle += 1
            while not self._calls and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if self._calls:
                return self._calls.popleft()
            self._threads -= 1
            self._changed.notify_all()
            return None


def _run(future: concurrent.futures.Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - an edge: the error is the caller's, who awaits it
        future.set_exception(error)
    else:
        future.set_result(result)


_pool: ThreadPool | None = None
_pool_lock = threading.Lock()


def pool() -> ThreadPool:
    """The process's pool, made at its first use with `WORKER_THREAD_POOL_SIZE` threads at most."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPool(settings_in_force().thread_pool_size)
            atexit.register(_pool.close, EXIT_TIMEOUT)
        return _pool


def _forget_pool() -> None:
    # A forked child has none of its parent's threads.
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_pool)
