"""The bridge from sync code to async services: an event loop for one call, or the process's shared one.

An async service called through it behaves as if its own program had called it: tasks it left over are cancelled and
awaited, its async generators, its loop resources and its default executor are closed, and its time-out stops it.
It never runs inside a running loop, and never imports Dramatiq or Redis.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, Generic, TypeVar

from worker.errors import LoopClosedError, RunningLoopError, SelfCancelledError
from worker.logs import get_logger
from worker.loop_resources import close_loop_resources, loop_resource
from worker.settings import settings_in_force
from worker.thread_pool import cancel_requested, run_in_thread_pool

__all__ = [
    "cancel_requested",
    "close_loop_resources",
    "loop_resource",
    "run_async_in_new_loop",
    "run_async_in_shared_loop",
    "run_in_thread_pool",
    "stop_shared_loop",
]

logger = get_logger(__name__)

T = TypeVar("T")

Work = Awaitable[T] | Callable[[], Awaitable[T]]

# Dramatiq interrupts a thread with an exception that takes effect when the thread next runs Python: it must, at times.
_INTERRUPT_POLL = 0.1

_SELF_CANCELLED = "the coroutine cancelled itself; nobody else asked for it"


def run_async_in_new_loop(work: Work[T], *, timeout: timedelta | float | None = None) -> T:
    """Runs a coroutine to its end on an event loop that no one used before, and closes that loop.

    When it returns, every task the coroutine left over has been cancelled and awaited, its async generators, loop
    resources and default executor have been closed. The coroutine sees the caller's contextvars.

    Args:
        work: An awaitable, or a function without arguments that returns one and is called inside the loop.
        timeout: Seconds, or a `timedelta`, after which the coroutine is cancelled.

    Raises:
        TypeError: `work` is neither.
        RunningLoopError: A loop runs in this thread: await the coroutine instead.
        TimeoutError: `timeout` was over; the coroutine was cancelled and its `finally` blocks have run.
        SelfCancelledError: The coroutine cancelled itself.
    """
    with _closed_if_refused(work):
        _refuse_running_loop()
        _refuse_non_awaitable(work)
        loop = asyncio.new_event_loop()
    try:
        return _run_task(loop, loop.create_task(_surfaced(work, timeout)))
    finally:
        try:
            loop.run_until_complete(_end_loop(loop))
        finally:
            loop.close()


def run_async_in_shared_loop(work: Work[T], *, timeout: timedelta | float | None = None) -> T:
    """Runs a coroutine to its end on the process's one long-lived loop, where clients keep their connections.

    Like `run_async_in_new_loop` otherwise, but for isolation: the loop is shared with every other call. It runs in
    a thread of its own, started by the first call in this process.

    Raises:
        LoopClosedError: The loop was stopped before the coroutine had ended.
    """
    with _closed_if_refused(work):
        _refuse_running_loop()
        _refuse_non_awaitable(work)
        shared = _shared_loop()
        return shared.run(_surfaced(work, timeout))


def stop_shared_loop() -> None:
    """Cancels what runs on the process's shared loop, closes its resources and ends its thread.

    The next call starts a new one.
    """
    global _shared
    with _shared_lock:
        shared, _shared = _shared, None
    if shared is not None:
        shared.stop()


@contextlib.contextmanager
def _closed_if_refused(work: object) -> Iterator[None]:
    """Closes a coroutine that was never started, so that Python does not warn that nobody awaited it."""
    try:
        yield
    except BaseException:
        if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            work.close()
        raise


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RunningLoopError("an event loop runs in this thread: await the coroutine instead of bridging to it")


def _refuse_non_awaitable(work: object) -> None:
    if inspect.isawaitable(work):
        return
    if not callable(work):
        raise TypeError(f"{work!r} is neither awaitable nor a function that returns an awaitable")
    try:
        inspect.signature(work).bind()
    except TypeError as error:
        raise TypeError(f"{work!r} must be callable without arguments: {error}; pass a lambda") from None
    except ValueError:
        return  # a builtin without a signature: calling it will tell


async def _surfaced(work: Work[T], limit: timedelta | float | None) -> T:
    """The work, awaited within its time-out."""
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
    async with asyncio.timeout(seconds):
        return await _awaitable(work)


def _awaitable(work: Work[T]) -> Awaitable[T]:
    if isinstance(work, Awaitable):
        return work
    made = work()
    if not inspect.isawaitable(made):
        raise TypeError(f"{work!r} returned {made!r}, which is not awaitable")
    return made


def _run_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
    try:
        return loop.run_until_complete(task)
    except asyncio.CancelledError as error:
        raise SelfCancelledError(_SELF_CANCELLED) from error
    except BaseException:
        # An interrupt (Ctrl-C, Dramatiq's time limit) may have hit the loop itself and left the task behind.
        if not task.done():
            task.cancel()
            loop.run_until_complete(asyncio.wait([task], timeout=_cleanup_seconds()))
            if task.done() and not task.cancelled():
                task.exception()
        raise


async def _end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends everything that lives on a loop, in the order in which things depend on each other."""
    await _cancel_other_tasks(loop)
    try:
        await close_loop_resources()
    except Exception:  # an edge: the work is done, and its outcome must not hang on a client that closes badly
        logger.exception("closing a loop resource failed")
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


async def _cancel_other_tasks(loop: asyncio.AbstractEventLoop) -> None:
    others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in others:
        task.cancel()
    if not others:
        return
    done, pending = await asyncio.wait(others, timeout=_cleanup_seconds())
    for task in pending:
        logger.error("a task did not end when cancelled", task=task.get_name(), coroutine=repr(task.get_coro()))
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task that was left over failed", task=task.get_name(), exc_info=error)


def _cleanup_seconds() -> float:
    return settings_in_force().cleanup_timeout.total_seconds()


class _SharedLoop:
    """One loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: set[_Call[Any]] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="shared-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        call = _Call(coroutine)
        with self._lock:
            if self._closed:
                coroutine.close()
                raise LoopClosedError("the shared loop is stopping: the process is ending")
            self._calls.add(call)
            # Copies this thread's context, in which the task then runs.
            self._loop.call_soon_threadsafe(call.start)
        try:
            while not call.ended.wait(_INTERRUPT_POLL):
                pass
        except BaseException:
            self._loop.call_soon_threadsafe(call.cancel)
            call.ended.wait(_cleanup_seconds())
            raise
        finally:
            with self._lock:
                self._calls.discard(call)
        return call.result()

    def stop(self) -> None:
        with self._lock:
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2 * _cleanup_seconds())

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            with self._lock:
                self._closed = True
                for call in self._calls:
                    call.abandon()
            self._loop.run_until_complete(_end_loop(self._loop))
            self._loop.close()


class _Call(Generic[T]):
    """One coroutine on the shared loop, and the thread that waits for it."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._abandoned = False
        self.ended = threading.Event()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(lambda _: self.ended.set())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        """Tells the waiting thread that the loop ends before its coroutine does."""
        self._abandoned = True
        if self._task is None:
            self._coroutine.close()
            self.ended.set()

    def result(self) -> T:
        if self._task is None or self._abandoned:
            raise LoopClosedError("the shared loop was stopped before the coroutine had ended")
        try:
            return self._task.result()
        except asyncio.CancelledError as error:
            raise SelfCancelledError(_SELF_CANCELLED) from error


_shared: _SharedLoop | None = None
_shared_lock = threading.Lock()


def _shared_loop() -> _SharedLoop:
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = _SharedLoop()
        return _shared


def _forget_shared_loop() -> None:
    # A forked child has its parent's loop, but not the thread that serves it.
    global _shared, _shared_lock
    _shared, _shared_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_shared_loop)
atexit.register(stop_shared_loop)
