"""Tells the server that this process was told to end, as soon as it is told.

Whatever ends the process then, its messages go to others without counting a crash. It never delays an end by more than
a second.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import redis

from worker.errors import WorkerError
from worker.threads.greenlets import original
from worker.threads.os_threads import start_thread_in_signal_handler

MOST_DELAY = 1.0
"""Seconds for which a second signal waits until the server knows of the first."""

_RETRY_DELAY = 0.2
_LOOK_EVERY = 0.005
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# A handler may run inside gevent's hub, which must not switch.
_sleep: Final[Callable[[float], None]] = original("time", "sleep")


class Farewell:
    """The news of a process that it was told to end, on its way to the server.

    Args:
        tell: Tells the server; it may raise an error of the server.

    Attributes:
        is_over: Whether the server knows, or need not know any more.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._is_said = False
        self.is_over = False

    def say(self) -> None:
        """Begins to tell the server, also from a signal handler; calls after the first do nothing."""
        if not self._is_said:
            self._is_said = True
            start_thread_in_signal_handler(self._insist)

    def _insist(self) -> None:
        while not self.is_over:
            try:
                self._tell()
            except (redis.RedisError, OSError, WorkerError):
                time.sleep(_RETRY_DELAY)
            else:
                self.is_over = True


class EndSignals:
    """The signals that tell this process to end, heard before their own handlers run.

    Args:
        told: Called with each signal.
        is_known: Tells whether the server knows of the first signal.
    """

    def __init__(self, told: Callable[[], None], is_known: Callable[[], bool]) -> None:
        self._told = told
        self._is_known = is_known
        self._handlers: dict[int, Any] = {}
        self._signals = 0

    def hear(self) -> None:
        """Begins to hear them. A signal without a handler stays as it is, and in other threads nothing can be heard."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._heard)

    def stop(self) -> None:
        """Gives the signals back to their own handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._heard:
                signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._told()
        if self._signals > 1:
            # Its own handler may end the process at once.
            deadline = time.monotonic() + MOST_DELAY
            while not self._is_known() and time.monotonic() < deadline:
                _sleep(_LOOK_EVERY)
        self._handlers[number](number, frame)
