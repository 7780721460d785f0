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
_LOOK_EVERY = 0.05


class WorkQueue:
    """What a Dramatiq worker asks of its queue: the most urgent item first, in their order those that are as urgent."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Any]] = []
        self._numbers = itertools.count()
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._busy: set[int] = set()
        self._closed = False

    def close(self, threads: int) -> None:
        """Has so many threads wait no longer than they should: from now on they look now and then."""
        # When an item goes to another at the very moment at which a wait should end, the standard library's queue
        # (CPython 3.11) waits for ever. While items come, the next wakes that thread; at the end nothing would.
        self._closed = True
        for _ in range(threads):
            self._ready.put(None)

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
        if self._closed:
            if block and not self._heap:
                time.sleep(_LOOK_EVERY if timeout is None else min(timeout, _LOOK_EVERY))
        else:
            self._ready.get(block, timeout)
        self._busy.add(threading.get_ident())
        try:
            return heapq.heappop(self._heap)[2]
        except IndexError:
            self._busy.discard(threading.get_ident())
            raise queue.Empty from None

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
