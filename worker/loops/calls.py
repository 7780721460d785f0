"""One coroutine on a loop, and the thread that waits for it: interrupts, results and errors.

An interrupt cancels the coroutine through its loop. Its `finally` blocks run, and then the call raises the original
interrupt, never another error in its place. A coroutine that does not end within `WORKER_CLEANUP_TIMEOUT` is reported.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

from worker.errors import SelfCancelledError
from worker.loops.account import Blocked, own_account
from worker.loops.interrupts import Section, current_section
from worker.loops.overruns import cleanup_seconds, report_overrun
from worker.loops.watchdog import start_watchdog
from worker.threads.os_threads import new_lock


class Call:
    """A task on a loop for which a thread waits, in a `with` block.

    Inside the block all interrupts of the thread's section come here, also before the task is made and after it has
    ended: no interrupt is raised while a loop is being made or closed.
    """

    def __init__(self) -> None:
        self.section: Section | None = current_section()
        self.exception: BaseException | None = None
        self.error: BaseException | None = None
        self.result: Any = None
        self.given_up = False
        self.task: asyncio.Task[Any] | None = None
        self.thread_id = self.section.thread_id if self.section is not None else 0
        self.blocked: Blocked | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self._over = False
        self._cancelled = False
        self._lock = new_lock()
        self._patience: threading.Timer | None = None

    def __enter__(self) -> Self:
        # Settings that are refused are the caller's to hear of, before there is a loop that would have to be ended.
        start_watchdog()
        if self.section is not None:
            self.section.wait_for(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._lock:
            self._over = True
        if (own := own_account()) is not None:
            if self.blocked is not None and self.blocked.seconds:
                own.stalls().add_all(self.blocked)
            own.wait()
        if self.section is not None:
            self.section.waited()
        # An error whose traceback leads back to it would stay until the collector runs, with all that its frames hold.
        late, self.exception, self.error = self.exception, None, None
        try:
            if error is None and late is not None:
                # It came after the coroutine had ended: it belongs to the code after the call.
                raise late
        finally:
            del late

    def interrupt(self, exception: BaseException) -> bool:
        """Cancels the task, now or as soon as it is made, but only once; False if the call is over."""
        with self._lock:
            if self._over:
                return False
            if self.exception is not None:
                return True
            self.exception = exception
            if self._loop is not None and not self._ended:
                self._request_cancel(self._loop)
            return True

    def begins(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Takes the task, and cancels it at once after an earlier interrupt. The loop's thread calls it."""
        with self._lock:
            self._loop, self.task = loop, task
            if self.exception is not None:
                self._request_cancel(loop)

    def ends(self) -> None:
        """Records the task's end: from now on, it is not cancelled."""
        with self._lock:
            self._ended = True
        if self._patience is not None:
            self._patience.cancel()

    @property
    def has_ended(self) -> bool:
        """Whether the task has ended."""
        return self._ended

    def leave(self) -> None:
        """Raises the call's error after its task has ended, if it has one.

        Raises:
            BaseException: The interrupt that cancelled the task, or the task's own error.
            SelfCancelledError: The task was cancelled without a request.
        """
        error, interrupt = self.error, self.exception if self._cancelled else None
        try:
            if interrupt is not None:
                raise interrupt from (None if isinstance(error, asyncio.CancelledError) else error)
            if isinstance(error, asyncio.CancelledError):
                raise SelfCancelledError("the coroutine cancelled itself, without a request from outside") from error
            if error is not None:
                raise error
        finally:
            del error, interrupt  # their traceback has this frame

    def cancel(self) -> None:
        """Cancels the task. The loop's thread calls it."""
        if self.task is not None and not self.task.done():
            self._cancelled = True
            self.task.cancel()

    def give_up(self) -> None:
        """Gives up a task that does not end. On a shared loop this does nothing: the thread keeps waiting."""

    def _request_cancel(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self.cancel)
        self._patience = threading.Timer(cleanup_seconds(), self._report)
        self._patience.daemon = True
        self._patience.start()

    def _report(self) -> None:
        with self._lock:
            exception = self.exception
            if self._ended or exception is None:
                return
            self.given_up = True
        report_overrun(exception, self.task, self.thread_id)
        self.give_up()
