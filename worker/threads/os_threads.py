"""OS threads for the bridge's loops and blocking calls; under gevent too, they are real threads.

Without gevent this is `threading` itself, without extra cost.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from worker.threads.greenlets import Lock, allocate_lock, in_os_thread, is_gevent
from worker.threads.unpatched import start_os_thread, unpatch

T = TypeVar("T")

GEVENT: Final = is_gevent()
"""Whether the program runs under gevent; decided at import, because gevent must patch before all other imports."""

new_lock: Final[Callable[[], Any]] = Lock if GEVENT else threading.Lock
"""Makes a lock that greenlets and OS threads may share."""


def new_condition() -> threading.Condition:
    """A condition that greenlets and OS threads may share."""
    return threading.Condition(new_lock()) if GEVENT else threading.Condition()


class OsThread(Protocol):
    """A thread that was started."""

    def join(self, timeout: float | None = None) -> None:
        """Waits for the thread's end, at most `timeout` seconds."""

    def is_alive(self) -> bool:
        """Whether the thread still runs."""


def start_thread(function: Callable[[], object], name: str) -> OsThread:
    """Starts a daemon thread of the operating system."""
    if GEVENT:
        return _BesideGreenlets(function, name)
    thread = threading.Thread(target=function, name=name, daemon=True)
    thread.start()
    return thread


def start_thread_in_signal_handler(function: Callable[[], object]) -> None:
    """Starts a daemon thread of the operating system, without a lock that the interrupted code may hold."""
    if GEVENT:
        start_os_thread(function)
    else:
        _thread.start_new_thread(function, ())


class _BesideGreenlets:
    """A real thread in a program whose `threading` starts greenlets."""

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
    """Waits until `wait` returns, also when exceptions are raised in this thread, or thrown into this greenlet.

    Args:
        wait: The function that waits; it is called again after each exception.
        interrupted: Called with each exception; it should make the wait end sooner.

    Raises:
        KeyboardInterrupt: A second Ctrl-C ends the wait at once.
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
        function: The function to call. Threads are started as needed, and kept for later calls.
        interrupted: Called with each exception thrown into the waiting greenlet, which still waits for the function.
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
    """A call that another thread makes, and its result."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.running = Lock()
        self.running.acquire()
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - an edge: the waiting greenlet raises it
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
