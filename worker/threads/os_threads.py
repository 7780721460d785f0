"""OS threads, for the loops and the blocking calls of the bridge: real ones under gevent too.

Without gevent all this is what `threading` offers, at no further cost.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from worker.threads.greenlets import Lock, allocate_lock, in_os_thread, is_gevent
from worker.threads.unpatched import start_os_thread, unpatch

T = TypeVar("T")

GEVENT: Final = is_gevent()
"""Decided when the bridge is imported: gevent must patch before anything else does."""

new_lock: Final[Callable[[], Any]] = Lock if GEVENT else threading.Lock
"""Makes a lock that greenlets and OS threads may share."""


def new_condition() -> threading.Condition:
    """A condition that greenlets and OS threads may share."""
    return threading.Condition(new_lock()) if GEVENT else threading.Condition()


class OsThread(Protocol):
    """What is known of a thread that was started."""

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end, for so many seconds at most."""

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""


def start_thread(function: Callable[[], object], name: str) -> OsThread:
    """Starts a daemon thread of the operating system."""
    if GEVENT:
        return _BesideGreenlets(function, name)
    thread = threading.Thread(target=function, name=name, daemon=True)
    thread.start()
    return thread


class _BesideGreenlets:
    """A real thread where `threading` makes greenlets."""

    def __init__(self, function: Callable[[], object], name: str) -> None:
        unpatch()
        self._ended = threading.Event()
        start_os_thread(self._run, function, name)

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    def _run(self, function: Callable[[], object], name: str) -> None:
        try:
            threading.current_thread().name = name
            function()
        finally:
            self._ended.set()


def wait_to_the_end(wait: Callable[[], object], interrupted: Callable[[BaseException], object]) -> None:
    """Waits although something is raised in this thread, or thrown into this greenlet, meanwhile.

    Args:
        wait: Called again until it returns.
        interrupted: Told each time, to have what is waited for end sooner.

    Raises:
        KeyboardInterrupt: A second Ctrl-C: it does not wait.
    """
    ctrl_c = False
    while True:
        try:
            wait()
        except BaseException as error:
            if ctrl_c and isinstance(error, KeyboardInterrupt):
                raise
            ctrl_c = isinstance(error, KeyboardInterrupt)
            interrupted(error)
        else:
            return


def run_in_os_thread(function: Callable[[], T], interrupted: Callable[[BaseException], object]) -> T:
    """Runs a function in a real thread while other greenlets run, and returns its result.

    Args:
        function: What is called; in a thread of as many as are needed, which are kept for later calls.
        interrupted: Told what is thrown into the greenlet while it waits; the function ends first.
    """
    if in_os_thread():
        return function()
    unpatch()
    call = _Call(function)
    runner = _idle.pop() if _idle else _Runner()  # no other greenlet runs in between
    runner.run(call)
    wait_to_the_end(call.running.acquire, interrupted)
    result: T = call.result()
    return result


class _Call:
    """A function on its way to another thread, there, or back."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.running = Lock()
        self.running.acquire()
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - an edge: it is raised in the greenlet that waits
            self._error = error

    def result(self) -> Any:  # noqa: ANN401 - the function's
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # no cycle through its traceback
        return self._result


class _Runner:
    """A thread that runs one call after another."""

    def __init__(self) -> None:
        self._next: _Call | None = None
        self._nothing_to_do = allocate_lock()
        self._nothing_to_do.acquire()
        start_thread(self._work, "new-loops")

    def run(self, call: _Call) -> None:
        self._next = call
        self._nothing_to_do.release()

    def _work(self) -> None:
        while True:
            self._nothing_to_do.acquire()
            call, self._next = self._next, None
            if call is not None:
                call.run()
                _idle.append(self)
                call.running.release()
                del call


_idle: list[_Runner] = []

# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_idle.clear)
