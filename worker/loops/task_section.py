"""The part of a task in which an interrupt reaches it: the body of an attempt that the shared loop runs.

No thread waits for such a coroutine, so everything is decided on its loop. An interrupt cancels it there; its `finally`
blocks run, and then it raises the original interrupt, never another error in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from worker.errors import SelfCancelledError
from worker.ground.logs import get_logger
from worker.loops.overruns import cleanup_seconds, report_overrun

logger = get_logger(__name__)


class SectionTask(asyncio.Task[None]):
    """A task that can be cancelled only while its section lasts: what comes before and after must go its way.

    A task that is cancelled before its first step would run nothing at all.
    """

    has_section = False

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ANN401 - as asyncio has it
        """Requests a cancel, as asyncio does; False outside the section."""
        return self.has_section and super().cancel(msg)

    async def forget_cancel(self) -> None:
        """Takes the cancel of a section that ended before it came, so that it hits nothing after that."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


class TaskSection:
    """The part of a task in which it may be interrupted. Its loop's thread makes and ends it; any thread interrupts.

    Args:
        task: The running task.
    """

    __slots__ = ("_cancelled", "_exception", "_loop", "_open", "_patience", "_task")

    def __init__(self, task: SectionTask) -> None:
        self._task = task
        task.has_section = True
        self._loop = task.get_loop()
        self._open = True
        self._cancelled = False
        self._exception: BaseException | None = None
        self._patience: asyncio.TimerHandle | None = None

    def interrupt(self, exception: BaseException) -> bool:
        """Cancels the task, but only once; False if the section has ended. A later interrupt changes nothing."""
        if not self._open:
            return False
        try:
            self._loop.call_soon_threadsafe(self._interrupt, exception)
        except RuntimeError:
            return False  # the loop is closed
        return True

    def cancel_call(self, exception: BaseException) -> bool:
        """Does what `interrupt` does: the coroutine is the call."""
        return self.interrupt(exception)

    def claim(self, exception: BaseException) -> bool:
        """Claims the section's one interrupt for the task itself, which raises it; False if it is taken."""
        if self._exception is not None:
            return False
        self._exception = exception
        return True

    def end(self, error: BaseException | None) -> BaseException | None:
        """Ends the section: no interrupt reaches the task after this. Returns the error that the task raises, or None.

        Args:
            error: The error with which the coroutine has ended, or None.
        """
        self._open = self._task.has_section = False
        if self._patience is not None:
            self._patience.cancel()
        if self._cancelled and self._exception is not None:
            self._exception.__cause__ = None if isinstance(error, asyncio.CancelledError) else error
            self._exception.__suppress_context__ = True
            error = self._exception
        elif isinstance(error, asyncio.CancelledError):
            own = SelfCancelledError("the coroutine cancelled itself, without a request from outside")
            own.__cause__ = error
            error = own
        self._exception = None  # its traceback has frames that have this section
        del self._task  # its context has the attempt, which has this section
        return error

    def _interrupt(self, exception: BaseException) -> None:
        if not self._open:
            logger.info("an interrupt came after the end and is dropped", exception=repr(exception))
        elif self._exception is None:
            self._exception = exception
            self._cancelled = True
            self._task.cancel()
            self._patience = self._loop.call_later(cleanup_seconds(), self._report)

    def _report(self) -> None:
        if self._open and self._exception is not None:
            report_overrun(self._exception, self._task, threading.get_ident())
