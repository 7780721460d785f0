"""When each message was sent and run, and by which process: a file that all processes of a measurement share.

Imports nothing but the standard library: every contender uses it, in whatever environment it runs.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from time import monotonic_ns

REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
MORE_QUEUES = os.environ.get("BENCH_MORE_QUEUES", "").split()
"""Queues to be served besides the default one, for what an idle process costs."""

WORD = 8


class Stamps:
    """Three columns of so many numbers, shared through a file; 0 is what has not happened.

    Attributes:
        sent_at: When each message was sent, in nanoseconds of the machine's monotonic clock.
        ran_at: When its actor began.
        ran_by: The process that ran it.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        words = memoryview(self._map).cast("q")
        self.count = len(words) // 3
        # Every page is touched now: memory that is measured later must not grow by them.
        sum(words[:: mmap.PAGESIZE // WORD])
        self.sent_at, self.ran_at, self.ran_by = (
            words[column * self.count : (column + 1) * self.count] for column in range(3)
        )

    @classmethod
    def create(cls, path: Path, count: int) -> Stamps:
        """A file for so many messages, none of them sent."""
        path.write_bytes(bytes(3 * WORD * count))
        return cls(path)

    def ran(self) -> int:
        """How many messages have run."""
        return self.count - self.ran_at.tolist().count(0)


_stamps = Stamps(Path(os.environ["BENCH_STAMPS"])) if "BENCH_STAMPS" in os.environ else None


def stamp(number: int) -> None:
    """What the no-op of every contender does: it says that it runs."""
    now = monotonic_ns()
    if _stamps is not None:
        _stamps.ran_by[number] = os.getpid()
        _stamps.ran_at[number] = now
