"""Where taken messages wait for a worker thread, in place of Dramatiq's own queue: without a lock all threads need.

With eight threads, quick attempts and a lock that each takes twice for a message, they end up waiting for it in a row:
a thread that is woken by its release owns it long before it may run. That costs four switches of threads a message and
half of the throughput. Here only what the interpreter does in one step is shared.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from typing import Any, Protocol


class _Item(Protocol):
    @property
    def priority(self) -> int: ...


_JOIN_EVERY = 0.005


class WorkQueue:
    """What a Dramatiq worker asks of its queue: the most urgent item first, in their order those that are as urgent."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Any]] = []
        self._numbers = itertools.count()
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._busy: set[int] = set()

    def put(self, item: _Item) -> None:
        """Adds an item."""
        # Numbers decide before items are compared: pushing is one step of the interpreter.
        heapq.heappush(self._heap, (item.priority, next(self._numbers), item))
        self._ready.put(None)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ANN401 - as the standard one
        """Takes the most urgent item.

        Raises:
            queue.Empty: There is none, after `timeout` seconds.
        """
        self._ready.get(block, timeout)
        self._busy.add(threading.get_ident())
        return heapq.heappop(self._heap)[2]

    def get_nowait(self) -> Any:  # noqa: ANN401 - as the standard one
        """Takes the most urgent item.

        Raises:
            queue.Empty: There is none.
        """
        return self.get(block=False)

    def task_done(self) -> None:
        """Notes that the calling thread is done with what it took."""
        self._busy.discard(threading.get_ident())

    def qsize(self) -> int:
        """How many items wait."""
        return len(self._heap)

    @property
    def unfinished_tasks(self) -> int:
        """How many items wait or are being worked on."""
        return len(self._heap) + len(self._busy)

    def join(self) -> None:
        """Waits until there are none; for tests."""
        while self.unfinished_tasks:
            time.sleep(_JOIN_EVERY)
