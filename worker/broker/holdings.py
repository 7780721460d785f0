"""What this process has taken and not yet ended, and how much more it may take.

It holds what its threads run, and ahead of that what they will run in the next moments: few messages where attempts
take long, so that other processes find work, and many where they are quick, so that no thread waits.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from worker.broker.taken import TakenMessage
from worker.broker.work_queue import WorkQueue
from worker.threads.os_threads import new_lock

AHEAD = 0.1
"""Seconds of work that are taken ahead."""

MOST_AHEAD = 1_000

AT_ONCE = 400
"""Messages that are taken in one round trip at most."""

CANCELLED_KEPT = 10_000
"""Cancelled deliveries that are remembered: one of them may be in an answer that is not read yet."""

_MEASURED_OVER = 0.02
_HALVED_AFTER = 0.25


class Holdings:
    """The account of taken messages. Those that no thread has begun wait in the worker's queue, and nowhere else.

    Args:
        waiting: The queue from which the worker threads of this process take.
        admit: Looks at each message before it waits there; False: it was dealt with otherwise.
    """

    def __init__(self, waiting: WorkQueue[TakenMessage], admit: Callable[[TakenMessage], bool]) -> None:
        self._threads = waiting.threads
        self._waiting = waiting
        self._admit = admit
        self._room_made = threading.Condition(new_lock())
        self._queues: list[str] = []
        self._by_id: dict[str, TakenMessage] = {}
        self._cancelled: OrderedDict[str, int] = OrderedDict()
        self._entries: set[tuple[str, str]] = set()
        self._ahead = 0
        self._ended = 0
        self._measured_at = time.monotonic()
        self._reader_waits = False
        self._open = True

    @property
    def queues(self) -> list[str]:
        """The queues whose messages are taken."""
        return list(self._queues)

    def is_open(self) -> bool:
        """Whether messages are still taken."""
        return self._open

    def open_queue(self, queue: str) -> bool:
        """Has a queue's messages taken too; False: they are already."""
        with self._room_made:
            if queue in self._queues:
                return False
            self._queues.append(queue)
            return True

    def put(self, messages: Sequence[TakenMessage]) -> None:
        """Adds messages that were taken, and has them wait for a thread."""
        for message in messages:
            self._by_id[message.message_id] = message
            self._entries.add((message.stream, message.entry))
        self.put_back([message for message in messages if self._admit(message)])

    def put_back(self, messages: Sequence[TakenMessage]) -> None:
        """Has messages wait again that were taken from those that wait."""
        for message in messages:
            self._waiting.put(message)

    def holds(self, message_id: str) -> TakenMessage | None:
        """The message of that id, if this process has it, or None."""
        return self._by_id.get(message_id)

    def cancel(self, message_id: str, fence: int) -> None:
        """Notes that a delivery of a message was cancelled, also if it is only on its way here."""
        self._cancelled[message_id] = fence
        if len(self._cancelled) > CANCELLED_KEPT:
            self._cancelled.popitem(last=False)

    def is_cancelled(self, message: TakenMessage) -> bool:
        """Whether this delivery of the message was cancelled."""
        return self._cancelled.get(message.message_id) == message.fence

    def __len__(self) -> int:
        return len(self._by_id)

    def ended(self, message: TakenMessage) -> None:
        """Its attempt has ended here: there is room for another."""
        # Without the lock, which every thread would need for every message: each step is one of the interpreter's.
        if message.ended:
            return
        message.ended = True
        self._ended += message.run is not None  # only a measure: one that is lost in a race does not matter
        known = self._by_id.pop(message.message_id, message)
        if known is not message:
            self._by_id[message.message_id] = known  # it was taken again meanwhile
        if self._reader_waits and self._room() > 0:
            with self._room_made:
                self._reader_waits = False
                self._room_made.notify()

    def stored(self, message: TakenMessage) -> None:
        """The server knows that it has ended."""
        self._entries.discard((message.stream, message.entry))

    def knows(self, stream: str, entry: str) -> bool:
        """Whether this process knows that it was given the entry."""
        return (stream, entry) in self._entries

    def wait_for_room(self, timeout: float) -> int:
        """How many messages may be taken now; waits for room, so many seconds at most."""
        with self._room_made:
            self._measure()
            # Said before looking: an attempt that ends looks for it after that.
            self._reader_waits = True
            if self._room() == 0 and self._open:
                self._room_made.wait(timeout)
                self._measure()
            self._reader_waits = False
            return self._room()

    def surplus(self) -> int:
        """How many messages too many are held: attempts take longer now than when they were taken."""
        with self._room_made:
            self._measure()
            return max(0, len(self._by_id) - self._threads - self._ahead - self._threads // 2)

    def is_ahead(self) -> bool:
        """Whether more messages are held than threads run."""
        return len(self._by_id) > self._threads

    def take_waiting(self) -> list[TakenMessage]:
        """Takes back the messages that wait for a thread, the most urgent first."""
        return self._waiting.drain()

    def close(self) -> None:
        """Ends the taking."""
        with self._room_made:
            self._open = False
            self._room_made.notify_all()

    def forget(self) -> None:
        """Drops the messages that wait: they have been given to others."""
        for message in self.take_waiting():
            self._by_id.pop(message.message_id, None)
        self._entries.clear()

    def _room(self) -> int:
        free = self._threads + self._ahead - len(self._by_id)
        # Neither one by one nor so many that threads wait for the last of them to be read.
        return min(free, AT_ONCE) if free > 0 and free >= min(self._ahead // 2, AT_ONCE // 2) else 0

    def _measure(self) -> None:
        now = time.monotonic()
        passed = now - self._measured_at
        if passed >= _MEASURED_OVER:
            ahead = min(MOST_AHEAD, int(self._ended / passed * AHEAD))
            # Down only by steps: a moment without work says little.
            self._ahead = max(ahead, self._ahead >> max(1, int(passed / _HALVED_AFTER)))
            self._ended = 0
            self._measured_at = now
