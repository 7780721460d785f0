"""One coroutine on a loop and the thread that waits for it: how it is interrupted, and what leaves the call.

An interrupt cancels the coroutine through its loop. Its `finally` blocks run, and then the original interrupt leaves
the call, never another error in its place. A coroutine that does not end within `WORKER_CLEANUP_TIMEOUT` is reported.
"""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import traceback
from typing import Generic, TypeVar

from worker.errors import SelfCancelledError
from worker.interrupts import Section
from worker.logs import get_logger
from worker.settings import settings_in_force

T = TypeVar("T")

logger = get_logger(__name__)

_overruns = 0


def overruns() -> int:
    """How many coroutines of this process did not end in time when they were cancelled."""
    return _overruns


def cleanup_seconds() -> float:
    """How long a cancelled coroutine may clean up."""
    return settings_in_force().cleanup_timeout.total_seconds()


class Call(Generic[T]):
    """A task on a loop, for which a section of a thread waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, section: Section | None) -> None:
        self.loop = loop
        self.section = section
        self.task: asyncio.Task[T] | None = None
        self.exception: BaseException | None = None
        self.given_up = False
        self._ended = False
        self._cancelled = False
        self._lock = threading.Lock()
        self._patience: threading.Timer | None = None

    def interrupt(self, exception: BaseException) -> bool:
        """Cancels the task through its loop; False if it has ended."""
        with self._lock:
            if self._ended:
                return False
            self.exception = exception
            self.loop.call_soon_threadsafe(self._cancel)
            self._patience = threading.Timer(cleanup_seconds(), self._report)
            self._patience.daemon = True
            self._patience.start()
            return True

    @property
    def has_ended(self) -> bool:
        """Whether the task has ended, as far as its section knows."""
        return self._ended

    def ends(self) -> None:
        """Notes that the task has ended: interrupts are for the thread again."""
        with self._lock:
            self._ended = True
        if self._patience is not None:
            self._patience.cancel()

    def leave_with(self, error: BaseException | None) -> None:
        """Raises what leaves the call when its task has ended with this error, or with none.

        Raises:
            BaseException: The interrupt that cancelled the task, else the task's own error.
            SelfCancelledError: The task was cancelled, and nobody asked for it.
        """
        if self._cancelled and self.exception is not None:
            raise self.exception from (None if isinstance(error, asyncio.CancelledError) else error)
        if isinstance(error, asyncio.CancelledError):
            raise SelfCancelledError("the coroutine cancelled itself; nobody else asked for it") from error
        if error is not None:
            raise error

    def _cancel(self) -> None:
        if self.task is not None and not self.task.done():
            self._cancelled = True
            self.task.cancel()

    def _report(self) -> None:
        """Tells of a coroutine that swallows its cancellation, or whose cleanup takes too long."""
        global _overruns
        with self._lock:
            if self._ended or self.exception is None:
                return
            self.given_up = True
        _overruns += 1
        where = self._where()
        said = f"the coroutine did not end within {cleanup_seconds():g} s of its cancellation"
        self.exception.add_note(f"{said}:\n{where}")
        logger.error(said, exception=repr(self.exception), stack=where)
        self.give_up()

    def give_up(self) -> None:
        """What is done then; nothing, where the loop is shared: the thread waits on until the task has ended."""

    def _where(self) -> str:
        out = io.StringIO()
        if self.task is not None:
            self.task.print_stack(limit=10, file=out)
        if self.section is not None and (frame := sys._current_frames().get(self.section.thread_id)) is not None:  # noqa: SLF001
            out.write("its thread:\n")
            traceback.print_stack(frame, limit=10, file=out)
        return out.getvalue()
