"""Interrupts: the way of a time limit, a shutdown or a cancel to the attempt that runs in a thread.

The body of an actor is a *section* of its thread. While the section waits for a coroutine, an interrupt cancels that
coroutine through its loop; otherwise it is raised in the thread, as Dramatiq does. Outside a section it is not
delivered: an interrupt during the acknowledgement would kill Dramatiq's worker thread for good.

An exception that is set in another thread takes effect at any place of that thread. Two rules make this safe: a section
gets only one interrupt, and a section does not end while an interrupt is on its way.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from worker.ground.logs import get_logger
from worker.threads.greenlets import current_greenlet

R = TypeVar("R")

logger = get_logger(__name__)

# Read once: what others find there may be diverted, to this room (attempts/foreign_interrupts.py).
_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Interruptible(Protocol):
    """A call for which a section waits."""

    def interrupt(self, exception: BaseException) -> bool:
        """Cancels the call; False if it is over."""


class Section:
    """The part of an attempt in which its thread may be interrupted; that thread and interrupters use it."""

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id
        self.exception: BaseException | None = None
        self._open = True
        self._deciding = False
        self._raised = False
        self._waits_for: Interruptible | None = None
        self._greenlet = current_greenlet()
        self._interrupters = threading.Lock()

    def interrupt(self, exception: BaseException) -> bool:
        """Interrupts the section, but only once; False if the section has ended."""
        with self._interrupters:
            if self.exception is not None:
                return True
            # Say first, then look: docs/explanation/waking-without-a-lock.md. The section's thread says that it ends.
            self._deciding = True
            try:
                if not self._open:
                    return False
                self.exception = exception
                waits_for = self._waits_for
                if waits_for is None or not waits_for.interrupt(exception):
                    self.raise_in_thread()
                return True
            finally:
                self._deciding = False

    def cancel_call(self, exception: BaseException) -> bool:
        """Cancels the call for which the section waits; False if it waits for none. The section goes on after it."""
        with self._interrupters:
            self._deciding = True
            try:
                waits_for = self._waits_for
                return self._open and waits_for is not None and waits_for.interrupt(exception)
            finally:
                self._deciding = False

    def claim(self, exception: BaseException) -> bool:
        """Claims the section's one interrupt for the caller, which raises it itself; False if it is taken."""
        with self._interrupters:
            if self.exception is not None:
                return False
            self.exception = exception
            return True

    def raise_in_thread(self) -> None:
        """Raises the interrupt in the thread, when it next runs Python."""
        exception = self.exception
        if exception is not None and self._open:
            if self._greenlet is not None:
                # As gevent does: while the greenlet waits, and other greenlets get their turn.
                self._greenlet.throw(exception, lambda: self._open)
                return
            self._raised = True
            set_exception(self.thread_id, type(exception))

    def wait_for(self, call: Interruptible) -> None:
        """Directs interrupts to a call from now on; raises an interrupt that came before.

        Raises:
            BaseException: The interrupt.
        """
        self._waits_for = call
        self._await_decision()
        look_for_exception()

    def waited(self) -> None:
        """Directs interrupts to the thread again."""
        self._waits_for = None

    def end(self) -> None:
        """Ends the section: no interrupt hits the thread after this; an interrupt that comes now is dropped."""
        self._open = False
        try:
            self._await_decision()
            look_for_exception()
        except BaseException as error:
            if not self._raised or type(error) is not type(self.exception):
                raise

    def _await_decision(self) -> None:
        while self._deciding:
            time.sleep(0)


def look_for_exception() -> None:
    """Makes an exception that was set in this thread be raised here: the interpreter looks for it at each call.

    It is never removed: CPython before 3.13 would keep looking for it at each call, and under a tracer for ever.
    """


_sections: dict[int, Section] = {}


def current_section() -> Section | None:
    """The section of this thread, or None."""
    return _sections.get(threading.get_ident())


def run_in_section(function: Callable[[], R], opened: Callable[[Section], object]) -> R:
    """Runs a function, the body of an attempt, as a section of the calling thread.

    Args:
        function: The body.
        opened: Called first, with the section and inside it: from then on interrupts can be sent.

    Raises:
        BaseException: The interrupt, or the function's error.
    """
    thread_id = threading.get_ident()
    section = _sections[thread_id] = Section(thread_id)
    ended = False
    try:
        try:
            opened(section)
            result = function()
            ended = True
        finally:
            section.end()
    except BaseException:
        section.end()
        if not ended:
            raise
        # The interrupt came after the body had ended, and is dropped.
        logger.info("an interrupt came after the end and is dropped", exception=repr(section.exception))
    finally:
        _sections.pop(thread_id, None)
        section.exception = None  # its traceback has this frame
    return result


def set_exception(thread_id: int, kind: type[BaseException]) -> None:
    """Sets the exception that a thread will raise when it next runs Python (CPython only).

    Args:
        thread_id: The id of an OS thread.
        kind: The exception's type, which is called without arguments.
    """
    _set_async_exc(ctypes.c_ulong(thread_id), ctypes.py_object(kind))
