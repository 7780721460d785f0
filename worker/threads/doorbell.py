"""A bell for one thread that sleeps until others bring it work; ringing costs nothing while it is awake."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from worker.threads.os_threads import new_lock


class Doorbell:
    """Wakes one sleeping thread or greenlet, from any thread or greenlet."""

    __slots__ = ("_asleep", "_bell")

    def __init__(self) -> None:
        self._asleep = False
        self._bell = new_lock()
        self._bell.acquire()

    def sleep(self, unless: Callable[[], object], timeout: float | None = None) -> None:
        """Sleeps until somebody rings. It may also return for nothing: the caller looks for work again.

        Only one thread at a time may sleep here.

        Args:
            unless: Tells whether there is work; it is asked once, before the sleep.
            timeout: Seconds to sleep at most; None: no limit.
        """
        # Said before looking: whoever brings work looks for this after that.
        self._asleep = True
        try:
            if not unless():
                self._bell.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            self._asleep = False

    def ring(self) -> bool:
        """Wakes the sleeper, to be called after the work was laid where it looks; False: nobody sleeps."""
        if not self._asleep:
            return False
        with contextlib.suppress(RuntimeError):  # somebody else has rung
            self._bell.release()
        return True
