"""The times at which each message was sent and run, and its process, in a file that all processes share.

It imports only the standard library, because every contender uses it, in any environment.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from time import monotonic_ns

REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
MORE_QUEUES = os.environ.get("BENCH_MORE_QUEUES", "").split()
"""Queues to serve besides the default one, for the measurement of an idle process."""

WORD = 8


class Stamps:
    """Three columns of numbers, shared through a file; 0 stands for an event that has not happened.

    Attributes:
        sent_at: The time at which each message was sent, in nanoseconds of the machine's monotonic clock.
        ran_at: The time at which its actor began.
        ran_by: The process that ran it.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        words = memoryview(self._map).cast("q")
        self.count = len(words) // 3
        # Every page is touched now, so that it does not count in later measurements of memory.
        sum(words[:: mmap.PAGESIZE // WORD])
        self.sent_at, self.ran_at, self.ran_by = (
            words[column * self.count : (column + 1) * self.count] for column in range(3)
        )

    @classmethod
    def create(cls, path: Path, count: int) -> Stamps:
        """A file for this many messages, none of them sent."""
        path.write_bytes(bytes(3 * WORD * count))
        return cls(path)

    def ran(self) -> int:
        """The number of messages that have run."""
        return self.count - self.ran_at.tolist().count(0)


_stamps = Stamps(Path(os.environ["BENCH_STAMPS"])) if "BENCH_STAMPS" in os.environ else None


def stamp(number: int) -> None:
    """Records the run of a message; the no-op of every contender calls it."""
    now = monotonic_ns()
    if _stamps is not None:
        _stamps.ran_by[number] = os.getpid()
        _stamps.ran_at[number] = now
