"""The bridge from sync code to async services: an event loop for one call, or the process's shared one.

An async service that is called through it behaves as in a program of its own: interrupts cancel it through its loop,
its `finally` blocks run, its leftover tasks are cancelled and awaited, and its async generators, its executor and
its loop resources are closed. The bridge never runs inside a running loop, and never imports Dramatiq or Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from worker.errors import RunningLoopError
from worker.ground.durations import in_seconds
from worker.ground.logs import get_logger
from worker.ground.texts import shown
from worker.loops.calls import Call
from worker.loops.fresh_loop import FreshLoop, close_loop, new_loop, run_to_its_end, watch_loop
from worker.loops.interrupts import current_section, look_for_exception, set_exception
from worker.loops.loop_resources import close_loop_resources, loop_resource
from worker.loops.overruns import cleanup_seconds, overruns
from worker.loops.shared_loop import SharedCall, shared_loop, stop_shared_loop
from worker.loops.thread_pool import cancel_requested, run_in_thread_pool
from worker.threads.greenlets import allocate_lock, get_os_ident
from worker.threads.os_threads import GEVENT, run_in_os_thread

__all__ = [
    "ForeignInterruptsWarning",
    "cancel_requested",
    "close_loop_resources",
    "loop_resource",
    "overruns",
    "run_async_in_new_loop",
    "run_async_in_shared_loop",
    "run_in_thread_pool",
    "stop_shared_loop",
]

T = TypeVar("T")

Work = Awaitable[T] | Callable[[], Awaitable[T]]

logger = get_logger(__name__)

_STOP_TIMEOUT = 0.2

_FOREIGN = {"dramatiq.middleware.time_limit", "dramatiq.middleware.shutdown"}


class ForeignInterruptsWarning(RuntimeWarning):
    """The program's broker has Dramatiq's own TimeLimit or ShutdownNotifications, which cannot reach a coroutine."""


def run_async_in_new_loop(work: Work[T], *, timeout: timedelta | float | None = None) -> T:
    """Runs a coroutine to its end on a new event loop, and closes that loop.

    When it returns, all leftover tasks of the coroutine have been cancelled and awaited, and its async generators, its
    executor and its loop resources have been closed. The coroutine sees the caller's contextvars.
    When the attempt is interrupted, the coroutine is cancelled and cleans up, and the interrupt leaves the call.

    Args:
        work: An awaitable, or a function without arguments that returns one and is called inside the loop.
        timeout: Seconds, or a `timedelta`, after which the coroutine is cancelled.

    Raises:
        TypeError: `work` is not awaitable, and not a function that returns an awaitable; or `timeout` is no time.
        RunningLoopError: A loop runs in this thread: await the coroutine instead.
        RuntimeError: `work` is a coroutine that ran before.
        TimeoutError: The coroutine took longer than `timeout`. It was cancelled, and its `finally` blocks have run.
        SelfCancelledError: The coroutine cancelled itself.
    """
    seconds = _seconds_of(work, timeout)
    try:
        with _new_loop_call() as call:
            coroutine = _coroutine_of(work, seconds)
            try:
                return call.run(coroutine)
            finally:
                _close_refused(coroutine)  # there was no loop to run it on
    finally:
        _close_refused(work)


def run_async_in_shared_loop(work: Work[T], *, timeout: timedelta | float | None = None) -> T:
    """Runs a coroutine to its end on the process's one long-lived loop, on which clients keep their connections.

    It works like `run_async_in_new_loop`, but without isolation: all calls share the loop, and leftover tasks of the
    coroutine live on. The loop runs in a thread of its own, which the first call in this process starts. An
    interrupted call returns only when its coroutine has really ended, after any time.

    Raises:
        LoopClosedError: The loop was stopped before the coroutine had ended.
    """
    seconds = _seconds_of(work, timeout)
    try:
        with SharedCall() as call:
            return shared_loop().run(call, _coroutine_of(work, seconds))
    finally:
        _close_refused(work)


def _refuse_misuse(work: object) -> None:
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented for event loops; ten times as fast
        _close_refused(work)
        raise RunningLoopError("an event loop runs in this thread: await the coroutine instead of bridging to it")
    if inspect.iscoroutine(work):
        if inspect.getcoroutinestate(work) != inspect.CORO_CREATED:
            raise RuntimeError(f"{work!r} ran before: call its function again for a new coroutine")
    elif not callable(work) and not inspect.isawaitable(work):
        raise TypeError(f"{shown(repr(work))} is neither awaitable nor a function that returns an awaitable")
    if current_section() is None:
        _warn_of_foreign_interrupts()


def _seconds_of(work: object, timeout: timedelta | float | None) -> float | None:
    """Refuses a call that is a misuse; else the seconds of `timeout`, or None."""
    _refuse_misuse(work)
    if timeout is None:
        return None
    try:
        return in_seconds("timeout", timeout)
    except TypeError:
        _close_refused(work)
        raise


def _coroutine_of(work: Work[T], timeout: float | None) -> Coroutine[Any, Any, T]:
    if timeout is not None:
        return _within(work, timeout)
    return work if inspect.iscoroutine(work) else _awaited(work)


def _close_refused(work: object) -> None:
    # Otherwise Python warns that the coroutine was never awaited.
    if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
        work.close()


def _refuse_arguments(function: Callable[..., object]) -> None:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise TypeError(f"{function!r} must be callable without arguments: {error}; pass a lambda") from None
    except ValueError:
        return  # a builtin without a signature: its call will show


async def _awaited(work: Work[T]) -> T:
    return await (work if isinstance(work, Awaitable) else _called(work))


def _called(factory: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    try:
        made = factory()
    except TypeError:
        _refuse_arguments(factory)
        raise
    if not inspect.isawaitable(made):
        raise TypeError(f"{factory!r} returned {made!r}, which is not awaitable")
    return made


async def _within(work: Work[T], limit: float) -> T:
    async with asyncio.timeout(limit):
        return await _awaited(work)


class _NewLoopCall(Call):
    """A coroutine on a new loop, in the thread of its caller."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self.loop = loop = new_loop()
        turns = None
        try:
            main = self._run(coroutine)
            task = loop.main_task(main) if isinstance(loop, FreshLoop) else loop.create_task(main)
            self.begins(loop, task)
            turns = watch_loop(loop)
            try:
                loop.run_until_complete(task)
            except BaseException as error:  # noqa: BLE001 - `leave` raises it
                self.ends()
                if not task.done():
                    # Ctrl-C hit the loop itself, or the loop was stopped: the task has not ended yet.
                    self._end_task(task, (coroutine, main), patient=not isinstance(error, KeyboardInterrupt))
                    raise self.exception or error from None
                self.error = error
            self.ends()
            self.leave()
            result: T = self.result
            return result
        finally:
            if turns is not None:
                self.blocked = turns.stop()
            close_loop(loop)

    async def _run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        # A task that ends with an error has it for good, and the error's traceback has frames that have the task.
        try:
            self.result = await coroutine
        except BaseException as error:  # noqa: BLE001 - an edge: the call raises it
            self.error = error

    def give_up(self) -> None:
        """Stops the loop. If a callback blocks it, interrupts its thread as Dramatiq does."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        time.sleep(_STOP_TIMEOUT)
        if not self.has_ended:
            self._interrupt_thread()

    def _interrupt_thread(self) -> None:
        if self.section is not None:
            self.section.raise_in_thread()

    def _end_task(
        self, task: asyncio.Task[None], coroutines: tuple[Coroutine[Any, Any, Any], ...], *, patient: bool
    ) -> None:
        try:
            if not self.given_up:
                task.cancel()
                wait = functools.partial(asyncio.wait, [task], timeout=cleanup_seconds())
                run_to_its_end(self.loop, wait, patient=patient)
        finally:
            if not task.done():
                for coroutine in coroutines:
                    _close(coroutine)
            elif not task.cancelled():
                task.exception()


class _GreenletsNewLoopCall(_NewLoopCall):
    """A coroutine on a new loop in a real thread, for a greenlet; other greenlets run while it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._in_thread = False
        self._thread_changes = allocate_lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        context = contextvars.copy_context()
        return run_in_os_thread(lambda: context.run(self._run_there, coroutine), self.interrupt)

    def _run_there(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self.thread_id = get_os_ident()
        self._in_thread = True
        try:
            return super().run(coroutine)
        finally:
            try:
                with self._thread_changes:
                    self._in_thread = False
                look_for_exception()
            except BaseException as error:
                if type(error) is not type(self.exception):
                    raise
                logger.info("an interrupt came after the end and is dropped", exception=repr(error))

    def _interrupt_thread(self) -> None:
        with self._thread_changes:
            if self._in_thread and self.exception is not None:
                set_exception(self.thread_id, type(self.exception))


_new_loop_call = _GreenletsNewLoopCall if GEVENT else _NewLoopCall


def _close(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.close()
    except RuntimeError as error:
        # Its `finally` blocks await, although it is being closed: nothing more can be done for it.
        logger.error("a coroutine cannot be closed", error=str(error))  # noqa: TRY400 - its stack was logged


_looked_for_foreign = False


def _warn_of_foreign_interrupts() -> None:
    """Warns once if the program's broker has Dramatiq's own interrupts; does not import Dramatiq."""
    global _looked_for_foreign
    if _looked_for_foreign:
        return
    broker = getattr(sys.modules.get("dramatiq.broker"), "global_broker", None)
    if broker is None:
        return
    _looked_for_foreign = True
    kinds = {type(middleware) for middleware in broker.middleware}
    foreign = sorted(kind.__name__ for kind in kinds if kind.__module__ in _FOREIGN)
    if foreign:
        warnings.warn(
            f"{' and '.join(foreign)} of Dramatiq cannot interrupt a coroutine: make the broker with "
            "worker.create_broker",
            ForeignInterruptsWarning,
            stacklevel=3,
        )
