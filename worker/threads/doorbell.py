"""A bell for one thread that sleeps until others bring it work; ringing costs nothing while it is awake.

docs/explanation/waking-without-a-lock.md tells why no work is missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from worker.threads.os_threads import new_lock


class Doorbell:
    """Wakes one sleeping thread or greenlet, from any thread or greenlet.

    Attributes:
        asleep: Whether the thread sleeps, or is about to.
    """

    __slots__ = ("_bell", "asleep")

    def __init__(self) -> None:
        self.asleep = False
        self._bell = new_lock()
        self._bell.acquire()

    def sleep(self, unless: Callable[[], object], timeout: float | None = None) -> None:
        """Sleeps until the bell rings. It may also return without a ring: the caller looks for work again.

        Only one thread at a time may sleep here.

        Args:
            unless: Tells whether there is work; it is asked once, before the sleep.
            timeout: Seconds to sleep at most; None: no limit.
        """
        # Say first, then look: a thread that brings work lays it down, then looks here.
        self.asleep = True
        try:
            if not unless():
                self._bell.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            self.asleep = False

    def ring(self) -> bool:
        """Wakes the sleeper; call it after adding the work. False if no thread sleeps."""
        if not self.asleep:
            return False
        with contextlib.suppress(RuntimeError):  # another thread has rung
            self._bell.release()
        return True
