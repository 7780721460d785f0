"""The registry of the attempts that run in this process; cancels, time limits, shutdowns and heartbeats use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from math import inf

from dramatiq.middleware.threading import Interrupt

from worker.attempts.run import AttemptRun

LOOK_EVERY = 1.0
"""Seconds between two looks at the deadlines while none is near."""


class RunningAttempts:
    """The running attempts by message and fence, and the thread that interrupts them at their deadlines.

    A deadline ends with its attempt, so it never has to be removed.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int], AttemptRun] = {}
        self._changed = threading.Condition()
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[AttemptRun]:
        return iter(list(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, message_id: str, fence: int) -> AttemptRun | None:
        """The attempt of this delivery, or None."""
        return self._runs.get((message_id, fence))

    def add(self, run: AttemptRun) -> None:
        """Adds an attempt that begins."""
        self._runs[run.key] = run

    def remove(self, run: AttemptRun) -> None:
        """Removes an attempt: from now on, it is not interrupted."""
        if self._runs.get(run.key) is run:
            del self._runs[run.key]

    # ------------------------------------------------------------------ deadlines

    def limit(self, run: AttemptRun, seconds: float, interrupt: type[Interrupt]) -> None:
        """Interrupts an attempt in this many seconds; if its body has not begun then, as soon as it begins."""
        at = run.limit(seconds, interrupt)
        # The watch sleeps until the earliest deadline; most of them come after it, and go before they are due.
        if at < self._wakes_at:
            with self._changed:
                self._changed.notify()

    @property
    def is_watched(self) -> bool:
        """Whether the deadlines are watched."""
        return self._thread is not None

    def start(self) -> None:
        """Starts to watch the deadlines."""
        with self._changed:
            self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the watch: from now on, deadlines do not interrupt."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        with self._changed:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                # A bounded sleep, so that a new deadline later than this need not wake the thread.
                self._wakes_at = now + LOOK_EVERY
                for run in self:
                    if run.due_at > now:
                        self._wakes_at = min(self._wakes_at, run.due_at)
                    elif run.due_interrupt is not None:
                        run.due_at = inf
                        run.interrupt(run.due_interrupt())
                self._changed.wait(max(0.0, self._wakes_at - time.monotonic()))
