"""The queue in which taken messages wait for a worker thread, in place of Dramatiq's queue, and without a common lock.

With a lock that each of eight threads takes twice per message, the threads end up waiting in a row: a thread that is
woken by a release owns the lock long before it can run. That costs four switches of threads per message, and half of
the throughput. Here threads share only steps that are atomic in the interpreter.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar


class _Item(Protocol):
    @property
    def priority(self) -> int: ...


T = TypeVar("T", bound=_Item)

_JOIN_EVERY = 0.005
_LOOK_EVERY = 0.05


class WorkQueue(Generic[T]):
    """A queue for a Dramatiq worker: the most urgent message comes first, equally urgent ones keep their order.

    Args:
        threads: The number of threads that take from it.

    Attributes:
        size: The number of threads that take from it.
    """

    def __init__(self, threads: int) -> None:
        self.size = threads
        self._heap: list[tuple[int, int, T]] = []
        self._numbers = itertools.count()
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._busy: set[int] = set()
        self._closed = False

    def close(self) -> None:
        """Bounds the waits of the threads: from now on they look now and then."""
        # If another thread gets an item at the very moment at which a wait should end, the standard library's queue
        # (CPython 3.11) waits for ever. While items come, the next one wakes that thread; at the end, none would.
        self._closed = True
        for _ in range(self.size):
            self._ready.put(None)

    def put(self, message: T) -> None:
        """Adds a message."""
        # The numbers decide before messages are compared, so that pushing is one step of the interpreter.
        heapq.heappush(self._heap, (message.priority, next(self._numbers), message))
        self._ready.put(None)

    def put_all(self, messages: Iterable[T]) -> None:
        """Adds messages."""
        for message in messages:
            self.put(message)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Takes the most urgent message.

        Raises:
            queue.Empty: There is no message after `timeout` seconds.
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
            queue.Empty: There is no message.
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
        """Records that the calling thread is done with its message."""
        self._busy.discard(threading.get_ident())

    def qsize(self) -> int:
        """The number of waiting items."""
        return len(self._heap)

    @property
    def unfinished_tasks(self) -> int:
        """The number of items that wait or are being run."""
        return len(self._heap) + len(self._busy)

    def join(self) -> None:
        """Waits until there are no unfinished items; for tests."""
        while self.unfinished_tasks:
            time.sleep(_JOIN_EVERY)
