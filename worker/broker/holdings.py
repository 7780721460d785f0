"""The messages that this process has taken and not yet ended, and the number that it may still take.

It holds the messages that its threads run, and those that they will run in the next moments: few messages if attempts
take long, so that other processes find work, and many if they are quick, so that no thread waits.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from worker.broker.taken import TakenMessage
from worker.broker.work_queue import WorkQueue
from worker.threads.doorbell import Doorbell
from worker.threads.os_threads import new_lock

AHEAD = 0.1
"""Seconds of work that are taken ahead."""

MOST_AHEAD = 1_000

AT_ONCE = 400
"""The most messages that are taken in one round trip."""

CANCELLED_KEPT = 10_000
"""Cancelled deliveries that are remembered, because one of them may be in an answer that is not read yet."""

_MEASURED_OVER = 0.02
_HALVED_AFTER = 0.25


class Holdings:
    """The account of taken messages. Messages that no thread has begun wait in the worker's queue, and nowhere else.

    Args:
        waiting: The queue of this process's worker threads.
        admit: Called with each message before it waits there; returns False if it must not run.
    """

    def __init__(self, waiting: WorkQueue[TakenMessage], admit: Callable[[TakenMessage], bool]) -> None:
        self._threads = waiting.threads
        self._waiting = waiting
        self._admit = admit
        self._lock = new_lock()
        self._room_made = Doorbell()
        self._queues: list[str] = []
        self._by_id: dict[str, TakenMessage] = {}
        self._cancelled: OrderedDict[str, int] = OrderedDict()
        self._entries: set[tuple[str, str]] = set()
        self._ahead = 0
        self._ended = 0
        self._measured_at = time.monotonic()
        self._open = True

    @property
    def queues(self) -> list[str]:
        """The queues whose messages are taken."""
        return list(self._queues)

    def is_open(self) -> bool:
        """Whether messages are still taken."""
        return self._open

    def open_queue(self, queue: str) -> bool:
        """Adds a queue to those that are read; False if it is one of them already."""
        with self._lock:
            if queue in self._queues:
                return False
            self._queues.append(queue)
            return True

    def put(self, messages: Sequence[TakenMessage]) -> None:
        """Adds taken messages, which wait for a thread."""
        for message in messages:
            self._by_id[message.message_id] = message
            self._entries.add((message.stream, message.entry))
        self.put_back([message for message in messages if self._admit(message)])

    def put_back(self, messages: Sequence[TakenMessage]) -> None:
        """Puts messages of `take_waiting` back, to wait again."""
        for message in messages:
            self._waiting.put(message)

    def holds(self, message_id: str) -> TakenMessage | None:
        """The message of this id, or None if this process does not hold it."""
        return self._by_id.get(message_id)

    def cancel(self, message_id: str, fence: int) -> None:
        """Records the cancel of a delivery, also if the message is still on its way here."""
        self._cancelled[message_id] = fence
        if len(self._cancelled) > CANCELLED_KEPT:
            self._cancelled.popitem(last=False)

    def is_cancelled(self, message: TakenMessage) -> bool:
        """Whether this delivery of the message was cancelled."""
        return self._cancelled.get(message.message_id) == message.fence

    def __len__(self) -> int:
        return len(self._by_id)

    def ended(self, message: TakenMessage) -> None:
        """Records the end of the message's attempt, which makes room for another message."""
        # Without the lock, which every thread would need for every message: each step is atomic in the interpreter.
        if message.ended:
            return
        message.ended = True
        self._ended += message.run is not None  # only a measure: a count that is lost in a race does not matter
        known = self._by_id.pop(message.message_id, message)
        if known is not message:
            self._by_id[message.message_id] = known  # the message was taken again meanwhile
        # The room is there (docs/explanation/waking-without-a-lock.md): is it waited for?
        if self._room_made.asleep and self._room() > 0:
            self._room_made.ring()

    def stored(self, message: TakenMessage) -> None:
        """Records that the server has stored the message's end."""
        self._entries.discard((message.stream, message.entry))

    def knows(self, stream: str, entry: str) -> bool:
        """Whether this process knows that it has the entry."""
        return (stream, entry) in self._entries

    def wait_for_room(self, timeout: float) -> int:
        """The number of messages that may be taken now; waits at most `timeout` seconds for room."""
        self._measure()
        self._room_made.sleep(unless=lambda: self._room() > 0 or not self._open, timeout=timeout)
        self._measure()
        return self._room()

    def surplus(self) -> int:
        """The number of messages that are held too many, because attempts take longer now."""
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
        self._open = False
        self._room_made.ring()

    def forget(self) -> None:
        """Drops the waiting messages, which other processes have now."""
        for message in self.take_waiting():
            self._by_id.pop(message.message_id, None)
        self._entries.clear()

    def _room(self) -> int:
        free = self._threads + self._ahead - len(self._by_id)
        # Not one by one, but not so many either that threads wait until the last of them is read.
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
