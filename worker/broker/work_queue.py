"""The one place where taken messages wait for a worker thread, instead of Dramatiq's queue: without a common lock.

With eight threads, quick attempts and a lock that each takes twice for a message, they end up waiting for it in a row:
a thread that is woken by its release owns it long before it may run. That costs four switches of threads a message and
half of the throughput. Here only what the interpreter does in one step is shared.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import threading
import time
from typing import Generic, Protocol, TypeVar


class _Item(Protocol):
    @property
    def priority(self) -> int: ...


T = TypeVar("T", bound=_Item)

_JOIN_EVERY = 0.005
_LOOK_EVERY = 0.05


class WorkQueue(Generic[T]):
    """What a Dramatiq worker asks of its queue: the most urgent message first, equally urgent ones in their order.

    Args:
        threads: How many threads take from it.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._heap: list[tuple[int, int, T]] = []
        self._numbers = itertools.count()
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._busy: set[int] = set()
        self._closed = False

    def close(self) -> None:
        """Has the threads wait no longer than they should: from now on they look now and then."""
        # When an item goes to another at the very moment at which a wait should end, the standard library's queue
        # (CPython 3.11) waits for ever. While items come, the next wakes that thread; at the end nothing would.
        self._closed = True
        for _ in range(self.threads):
            self._ready.put(None)

    def put(self, message: T) -> None:
        """Adds a message."""
        # Numbers decide before messages are compared: pushing is one step of the interpreter.
        heapq.heappush(self._heap, (message.priority, next(self._numbers), message))
        self._ready.put(None)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Takes the most urgent message.

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

    def get_nowait(self) -> T:
        """Takes the most urgent message.

        Raises:
            queue.Empty: There is none.
        """
        return self.get(block=False)

    def drain(self) -> list[T]:
        """Takes all messages, the most urgent first."""
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self.get_nowait())
                self.task_done()
        return taken

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
