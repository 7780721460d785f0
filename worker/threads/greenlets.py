"""Greenlets and OS threads side by side, where gevent has patched the standard library (`dramatiq-gevent`).

gevent's own locks lose wake-ups between OS threads, and its `threading` starts greenlets in place of threads. This
module has tools that work for both: a lock, a call into the hub's thread, a throw into a greenlet. It imports gevent
only if the program has patched with it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def is_gevent() -> bool:
    """Whether gevent has replaced this program's threads with greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def original(module: str, name: str) -> Any:  # noqa: ANN401 - any object that gevent replaced
    """The object that a module of the standard library has under this name without gevent."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(__import__(module), name)


allocate_lock: Final = original("_thread", "allocate_lock")
get_os_ident: Final = original("_thread", "get_ident")
"""The identity of the OS thread; under gevent, `threading.get_ident` is that of a greenlet."""

_here: Final = original("_thread", "_local")()


def in_os_thread() -> bool:
    """Whether this is an OS thread of our own, in which no greenlets run. Only for programs under gevent."""
    return getattr(_here, "is_ours", False)


def mark_os_thread() -> None:
    """Marks the calling thread as an OS thread of our own."""
    _here.is_ours = True


def _hub() -> Any:  # noqa: ANN401 - gevent's
    """The calling thread's hub, if other greenlets may run in this thread while this one waits."""
    if in_os_thread():
        return None
    return sys.modules["gevent._hub_local"].get_hub_if_exists()


class Lock:
    """A lock for greenlets and OS threads: while a greenlet waits, other greenlets run.

    A waiting greenlet joins the line and then looks at the lock; the holder releases the lock and then looks at the
    line. One of them always sees the other (docs/explanation/waking-without-a-lock.md).
    """

    __slots__ = ("__weakref__", "_line", "_lock")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._line: deque[Callable[[], object]] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Takes the lock; False if it is taken, or is still taken after `timeout` seconds."""
        if self._lock.acquire(False):
            return True
        if not blocking:
            return False
        hub = _hub()
        if hub is None:
            taken: bool = self._lock.acquire(True, timeout)
            return taken
        return self._wait_in(hub, timeout)

    __enter__ = acquire

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lock, from any thread or greenlet."""
        self._lock.release()
        self._wake_next()

    def locked(self) -> bool:
        """Whether the lock is taken."""
        taken: bool = self._lock.locked()
        return taken

    def _wait_in(self, hub: Any, timeout: float) -> bool:  # noqa: ANN401 - gevent's
        gevent = sys.modules["gevent"]
        waiter, bell = sys.modules["gevent.hub"].Waiter(hub), hub.loop.async_()
        limit = gevent.Timeout.start_new(timeout if timeout >= 0 else None)
        ring = bell.send
        bell.start(lambda: waiter.switch(None))
        self._line.append(ring)
        taken = False
        try:
            while not (taken := self._lock.acquire(False)):
                waiter.get()
                waiter.clear()
        except gevent.Timeout as error:
            if error is not limit:
                raise
        finally:
            limit.close()
            bell.close()
            with contextlib.suppress(ValueError):
                self._line.remove(ring)
            if not taken:
                # This wake-up may have been for this greenlet: pass it on.
                self._wake_next()
        return taken

    def _wake_next(self) -> None:
        with contextlib.suppress(IndexError):
            self._line[0]()

    def _at_fork_reinit(self) -> None:
        self._lock = allocate_lock()
        self._line.clear()


class CurrentGreenlet:
    """The calling greenlet, as another thread or greenlet can interrupt it."""

    def __init__(self) -> None:
        gevent = sys.modules["gevent"]
        self._greenlet, self._hub = gevent.getcurrent(), gevent.get_hub()

    def throw(self, exception: BaseException, is_wanted: Callable[[], bool]) -> None:
        """Raises an exception where the greenlet waits, if `is_wanted()` is still true when the hub does it."""
        self._hub.loop.run_callback_threadsafe(self._throw, exception, is_wanted)

    def _throw(self, exception: BaseException, is_wanted: Callable[[], bool]) -> None:
        if is_wanted() and not self._greenlet.dead:
            self._greenlet.throw(exception)


def current_greenlet() -> CurrentGreenlet | None:
    """The calling greenlet, or None (without gevent, or in an OS thread of our own)."""
    return CurrentGreenlet() if is_gevent() and not in_os_thread() else None


_main_hub: Any = None


def note_hub() -> None:
    """Remembers the calling thread's hub as the hub of the program's greenlets."""
    global _main_hub
    if _main_hub is None and not in_os_thread():
        _main_hub = sys.modules["gevent"].get_hub()


def call_among_greenlets(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function where it may use objects of greenlets, such as a connection that they share.

    An OS thread of our own has it called by a greenlet of the program's hub; any other caller calls it itself.
    """
    if not in_os_thread() or _main_hub is None:
        return function(*args, **kwargs)
    outcome: list[R] = []
    errors: list[BaseException] = []
    done = allocate_lock()
    done.acquire()
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - an edge: the waiting thread raises it
            errors.append(error)
        finally:
            done.release()

    _main_hub.loop.run_callback_threadsafe(sys.modules["gevent"].spawn, run)
    done.acquire()
    if errors:
        raise errors[0]
    return outcome[0]
