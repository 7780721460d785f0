"""The process's one long-lived event loop, in a thread of its own, for services that keep their connections.

The first call in a process starts it, never an import and never before a fork. It stops in order: calls that still
run then fail with a typed error, and no call hangs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from worker.errors import LoopClosedError
from worker.ground.logs import get_logger
from worker.loops.account import Account, own_account
from worker.loops.calls import Call
from worker.loops.fresh_loop import close_loop, new_loop, watch_loop
from worker.loops.overruns import cleanup_seconds
from worker.loops.watchdog import Turns
from worker.threads.os_threads import new_lock, start_thread, wait_to_the_end

T = TypeVar("T")

logger = get_logger(__name__)


class SharedCall(Call):
    """One coroutine that the shared loop runs for a caller in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.abandoned = False
        self._context = contextvars.copy_context()
        self._turns: Turns | None = None
        # A bare lock, held until the coroutine has ended, costs half as much as an Event.
        self._running = new_lock()
        self._running.acquire()
        self._released = False

    def start(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object], turns: Turns | None
    ) -> None:
        """Makes the task. The loop's thread calls it."""
        self._turns = turns
        self.begins(loop, loop.create_task(self._run(coroutine), context=self._context))

    def wait(self) -> None:
        """Waits for the coroutine's end. The calling thread calls it, again after an interrupt."""
        if not self._released:
            self._running.acquire()

    def release(self) -> None:
        """Ends the wait; does nothing if it has ended."""
        if not self._released:
            self._released = True
            self._running.release()

    def cancel(self) -> None:
        """Cancels the task. The loop's thread calls it."""
        # A task that is cancelled before its first step never runs its `finally` block.
        if self.task is not None:
            self.task.add_done_callback(lambda _: self.release())
        super().cancel()

    async def _run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            self.result = await coroutine
        except BaseException as error:  # noqa: BLE001 - an edge: the waiting thread raises it, not the loop
            self.error = error
        finally:
            if self._turns is not None and (own := own_account()) is not None:
                self._turns.charge(own)
            # The last step of the task itself: a callback would come one turn of the loop later.
            self.release()


class SharedLoop:
    """One loop in a thread of its own; making one starts it.

    Attributes:
        loop: The loop.
        thread_id: The loop's thread, or 0 before it runs.
    """

    def __init__(self) -> None:
        self.thread_id = 0
        self.loop = new_loop(long_lived=True)
        self._coming: deque[tuple[SharedCall, Coroutine[Any, Any, object]]] = deque()
        self._calls: set[SharedCall] = set()
        self._closed = False
        self._called = False
        self._turns: Turns | None = None
        self._thread = start_thread(self._serve, "shared-loop")

    def run(self, call: SharedCall, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end, inside the `with` block of its call.

        Raises:
            LoopClosedError: The loop was stopped before the coroutine had ended.
            BaseException: The coroutine's error, or the interrupt that cancelled it.
        """
        self._send(call, coroutine)
        try:
            wait_to_the_end(call.wait, call.interrupt)
        finally:
            call.ends()
            self._calls.discard(call)
        if call.abandoned and call.exception is None and call.error is not None:
            raise LoopClosedError("the shared loop was stopped before the coroutine had ended") from call.error
        call.leave()
        result: T = call.result
        return result

    def post(self, function: Callable[[], object]) -> None:
        """Calls a function soon, in the loop's thread.

        Raises:
            LoopClosedError: The loop is stopping. If it stops before the call, the function is called while it does.
        """
        try:
            if not self._closed:
                self.loop.call_soon_threadsafe(function)
                return
        except RuntimeError as error:
            raise LoopClosedError("the shared loop is closed") from error
        raise LoopClosedError("the shared loop is stopping")

    def charge(self, own: Account) -> None:
        """Charges the owner of a task that ends with the stall that still lasts, if it is this one's."""
        if self._turns is not None:
            self._turns.charge(own)

    @property
    def blocked_for(self) -> float:
        """Seconds for which it has been blocked by now; 0 if it is not."""
        return 0.0 if self._turns is None else self._turns.lasts()

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more work."""
        return self._closed

    def stop(self) -> None:
        """Refuses new calls, cancels the running ones and awaits them, closes the loop's resources, ends the thread."""
        self._closed = True
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(3 * cleanup_seconds())
        if self._thread.is_alive():
            logger.error("the shared loop does not stop: a coroutine blocks it, or does not end")

    def _send(self, call: SharedCall, coroutine: Coroutine[Any, Any, object]) -> None:
        # No lock: with one, threads would wait for the thread that wakes the loop.
        self._calls.add(call)
        # Say first, then look: docs/explanation/waking-without-a-lock.md.
        self._coming.append((call, coroutine))
        if self._closed:
            self._take_back(call, coroutine)
        # One wake-up serves all calls that come before the loop is awake.
        elif not self._called:
            self._called = True
            try:
                self.loop.call_soon_threadsafe(self._start_calls)
            except RuntimeError:
                self._take_back(call, coroutine)

    def _take_back(self, call: SharedCall, coroutine: Coroutine[Any, Any, object]) -> None:
        """Refuses a call that came too late. If the ending loop has taken the call, it ends with the loop."""
        with contextlib.suppress(ValueError):
            self._coming.remove((call, coroutine))
            self._calls.discard(call)
            coroutine.close()
            raise LoopClosedError("the shared loop is stopping: the process is ending")

    def _start_calls(self) -> None:
        self._called = False
        while self._coming:
            try:
                call, coroutine = self._coming.popleft()
            except IndexError:
                return  # taken back
            call.start(self.loop, coroutine, self._turns)

    def _stopped(self) -> bool:
        """Runs the loop until it is stopped; False if a task or a callback raised `SystemExit` or the like."""
        try:
            self.loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            # These end an asyncio loop. The task's caller gets the error, and the other calls go on.
            logger.error("a service on the shared loop wanted to end the program", error=repr(error))  # noqa: TRY400
            return False
        return True

    def _serve(self) -> None:
        self.thread_id = threading.get_ident()
        try:
            self._turns = watch_loop(self.loop, shared=True)
            while not self._stopped() and not self._closed:
                pass
        finally:
            self._closed = True
            self._start_calls()
            for call in list(self._calls):
                call.abandoned = True
            try:
                close_loop(self.loop)
            finally:
                # The remaining callers have a task that does not end, or that never took its first step.
                for call in list(self._calls):
                    call.error = call.error or LoopClosedError("the coroutine did not end with the loop")
                    call.release()


_shared: SharedLoop | None = None
_shared_lock = new_lock()


def shared_loop() -> SharedLoop:
    """The process's shared loop, started at its first use."""
    global _shared
    shared = _shared
    if shared is None:
        with _shared_lock:
            if _shared is None:
                _shared = SharedLoop()
            shared = _shared
    return shared


def is_shared_loop(thread_id: int) -> bool:
    """Whether this thread is the one of the process's shared loop."""
    return _shared is not None and _shared.thread_id == thread_id


def shared_loop_blocked() -> float:
    """Seconds for which the process's shared loop has been blocked by now; 0 if it is not."""
    return 0.0 if _shared is None else _shared.blocked_for


def stop_shared_loop() -> None:
    """Cancels all calls on the process's shared loop, closes its resources and ends its thread.

    The next call starts a new one.
    """
    global _shared
    with _shared_lock:
        shared, _shared = _shared, None
    if shared is not None:
        shared.stop()


def _forget_shared_loop() -> None:
    # A forked child has its parent's loop object, but not the loop's thread.
    global _shared, _shared_lock
    _shared, _shared_lock = None, new_lock()


os.register_at_fork(after_in_child=_forget_shared_loop)
atexit.register(stop_shared_loop)
