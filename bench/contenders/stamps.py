"""The times at which each message was sent, begun and ended, and its process, in a file that all processes share.

It imports only the standard library, because every contender uses it, in any environment.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from pathlib import Path
from time import monotonic_ns

REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
MORE_QUEUES = os.environ.get("BENCH_MORE_QUEUES", "").split()
"""Queues to serve besides the default one, for the measurement of an idle process."""
AT_ONCE = int(os.environ.get("BENCH_AT_ONCE", "1"))
"""Messages that a worker process runs at once."""
SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
"""The time for which each coroutine waits."""

WORD = 8
COLUMNS = 4


class Stamps:
    """Four columns of numbers, shared through a file; 0 stands for an event that has not happened.

    Attributes:
        sent_at: The time at which each message was sent, in nanoseconds of the machine's monotonic clock.
        ran_at: The time at which its actor began.
        ran_by: The process that ran it.
        ended_at: The time at which its coroutine had waited.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        words = memoryview(self._map).cast("q")
        self.count = len(words) // COLUMNS
        # Every page is touched now, so that it does not count in later measurements of memory.
        sum(words[:: mmap.PAGESIZE // WORD])
        self.sent_at, self.ran_at, self.ran_by, self.ended_at = (
            words[column * self.count : (column + 1) * self.count] for column in range(COLUMNS)
        )

    @classmethod
    def create(cls, path: Path, count: int) -> Stamps:
        """A file for this many messages, none of them sent."""
        path.write_bytes(bytes(COLUMNS * WORD * count))
        return cls(path)

    def ran(self) -> int:
        """The number of messages that have run."""
        return self.count - self.ran_at.tolist().count(0)

    def ended(self) -> int:
        """The number of messages that have waited and ended."""
        return self.count - self.ended_at.tolist().count(0)


_stamps = Stamps(Path(os.environ["BENCH_STAMPS"])) if "BENCH_STAMPS" in os.environ else None


def stamp(number: int) -> None:
    """Records the run of a message; the no-op of every contender calls it."""
    now = monotonic_ns()
    if _stamps is not None:
        _stamps.ran_by[number] = os.getpid()
        _stamps.ran_at[number] = now


async def work(number: int) -> None:
    """The coroutine of every contender: it records its run, and waits if the measurement says so."""
    stamp(number)
    if SECONDS:
        await asyncio.sleep(SECONDS)
        if _stamps is not None:
            _stamps.ended_at[number] = monotonic_ns()
