"""Interrupts: how a time limit, a shutdown or a cancellation reaches the attempt that runs in a thread.

The body of an actor is a *section* of its thread. While the section waits for a coroutine, an interrupt cancels that
coroutine through its loop; otherwise it is raised in the thread, as Dramatiq does. Outside a section it is not
delivered: one that hit the acknowledgement would kill Dramatiq's worker thread for good.

An exception set in another thread takes effect wherever that thread happens to be. All that is done about
it here rests on two rules: only one interrupt is sent to a section, and a section does not end while one is on its way.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from worker.ground.logs import get_logger
from worker.threads.greenlets import current_greenlet

P = ParamSpec("P")
R = TypeVar("R")

logger = get_logger(__name__)

RETRY_EVERY = 0.05
"""Seconds between two tries to interrupt a thread that is not in its section: not yet, or no more."""


LOOK_EVERY = 1.0
"""Seconds between two looks at the deadlines while none is near."""


class Interruptible(Protocol):
    """What a section waits for."""

    def interrupt(self, exception: BaseException) -> bool:
        """Cancels it; False if it is over."""


class Section:
    """The stretch of an attempt in which its thread may be interrupted; used by that thread and by interrupters."""

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
        """Interrupts what runs in the section, unless that was done before; False if the section has ended."""
        with self._interrupters:
            if self.exception is not None:
                return True
            # Said before looking: the section's thread says that it ends before it looks for this.
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

    def raise_in_thread(self) -> None:
        """Raises the interrupt in the thread, when it next runs Python."""
        if self.exception is not None and self._open:
            if self._greenlet is not None:
                # As gevent does: when it waits, and other greenlets get their turn.
                self._greenlet.throw(self.exception, lambda: self._open)
                return
            self._raised = True
            set_exception(self.thread_id, type(self.exception))

    def wait_for(self, call: Interruptible) -> None:
        """Directs interrupts to a call, from now on; one that was sent before is raised here.

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
        """Ends the section: no interrupt will hit the thread after this; one that comes now is dropped."""
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
    """An exception that was set in this thread is raised here at the latest: the interpreter looks as a call begins.

    It is never taken back: CPython before 3.13 would go on looking for it at each call, and under a tracer for ever.
    """


_sections: dict[int, Section] = {}


def current_section() -> Section | None:
    """The section of this thread, if it is in one."""
    return _sections.get(threading.get_ident())


def section_of(thread_id: int) -> Section | None:
    """The section of a thread, if it is in one."""
    return _sections.get(thread_id)


def interrupt(thread_id: int, exception: BaseException) -> bool:
    """Interrupts the section of a thread; False if the thread is in none."""
    section = _sections.get(thread_id)
    return section is not None and section.interrupt(exception)


def interruptible(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function, the body of an actor, a section of the thread that runs it."""
    if getattr(function, "is_interruptible", False):
        return function

    @functools.wraps(function)
    def body(*args: P.args, **kwargs: P.kwargs) -> R:
        thread_id = threading.get_ident()
        if thread_id in _sections:
            # An actor that calls another one directly: the outer section covers it.
            return function(*args, **kwargs)
        section = _sections[thread_id] = Section(thread_id)
        ended = False
        try:
            try:
                result = function(*args, **kwargs)
                ended = True
            finally:
                section.end()
        except BaseException:
            section.end()
            if not ended:
                raise
            # The interrupt came after the body had ended: dropped.
            logger.info("an interrupt came after the end and is dropped", exception=repr(section.exception))
        finally:
            _sections.pop(thread_id, None)
        return result

    body.is_interruptible = True  # type: ignore[attr-defined]
    return body


def set_exception(thread_id: int, kind: type[BaseException]) -> None:
    """Sets the exception that a thread will raise when it next runs Python (CPython only).

    Args:
        thread_id: An OS thread's.
        kind: Without arguments.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(kind))


class Deadlines:
    """Interrupts threads when their time has come, from a thread of its own.

    Each thread has one deadline at most. It is due until it is cancelled: a thread that is not in its
    section yet is tried again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._due: dict[int, tuple[float, Callable[[], BaseException]]] = {}
        self._changed = threading.Condition()
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        with self._changed:
            self._thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread; nothing is interrupted any more."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()

    def set(self, seconds: float, exception: Callable[[], BaseException]) -> None:
        """Interrupts the calling thread's section in so many seconds."""
        at = time.monotonic() + seconds
        self._due[threading.get_ident()] = at, exception
        # The watcher sleeps until the earliest deadline; most of them come after it, and go before they are due.
        if at < self._wakes_at:
            with self._changed:
                self._changed.notify()

    def cancel(self) -> None:
        """Forgets the calling thread's deadline."""
        self._due.pop(threading.get_ident(), None)

    def set_for(self, thread_id: int, seconds: float, exception: Callable[[], BaseException]) -> None:
        """Interrupts a thread's section in so many seconds, or as soon as it begins then, unless it is cancelled."""
        with self._changed:
            self._due[thread_id] = time.monotonic() + seconds, exception
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                # Not later: while nothing is due, every deadline that is set would have to wake this thread.
                self._wakes_at = now + LOOK_EVERY
                for thread_id, (at, exception) in list(self._due.items()):
                    if at > now:
                        self._wakes_at = min(self._wakes_at, at)
                    elif interrupt(thread_id, exception()):
                        self._due.pop(thread_id, None)
                    else:
                        self._wakes_at = min(self._wakes_at, now + RETRY_EVERY)
                self._changed.wait(max(0.0, self._wakes_at - time.monotonic()))
