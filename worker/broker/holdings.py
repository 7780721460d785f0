"""What this process has taken and not yet ended, and how much more it may take.

It holds what its threads run, and ahead of that what they will run in the next moments: few messages where attempts
take long, so that other processes find work, and many where they are quick, so that no thread waits.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable

from worker.broker.taken import TakenMessage
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
    """The account of taken messages, and the inboxes of the queues' consumers.

    Args:
        threads: Worker threads of this process.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        lock = new_lock()
        self._arrived = threading.Condition(lock)
        self._room_made = threading.Condition(lock)
        self._inboxes: dict[str, deque[TakenMessage]] = {}
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
        """The queues that have an inbox."""
        return list(self._inboxes)

    def is_open(self) -> bool:
        """Whether messages are still taken."""
        return self._open

    def open_inbox(self, queue: str) -> None:
        """Makes the queue's inbox, if it has none."""
        with self._arrived:
            self._inboxes.setdefault(queue, deque())

    def put(self, messages: Iterable[TakenMessage]) -> None:
        """Hands messages to their queues' consumers."""
        with self._arrived:
            for message in messages:
                self._by_id[message.message_id] = message
                # Noted before looking: who cancels it says so before looking whether it is here.
                message.cancelled = message.cancelled or self._cancelled.get(message.message_id) == message.fence
                self._entries.add((message.stream, message.entry))
                self._inboxes[message.queue_name].append(message)
            self._arrived.notify_all()

    def next_of(self, queue: str, timeout: float) -> TakenMessage | None:
        """The queue's next message; `None` if none comes in so many seconds."""
        inbox = self._inboxes[queue]
        try:
            return inbox.popleft()
        except IndexError:
            pass
        with self._arrived:
            if not inbox:
                self._arrived.wait(timeout)
            return inbox.popleft() if inbox else None

    def running(self, message_id: str) -> TakenMessage | None:
        """The message of that id, if this process has it."""
        return self._by_id.get(message_id)

    def cancel(self, message_id: str, fence: int) -> TakenMessage | None:
        """Marks a delivery of a message as cancelled, also if it is only on its way here; answers with it if it is."""
        self._cancelled[message_id] = fence
        if len(self._cancelled) > CANCELLED_KEPT:
            self._cancelled.popitem(last=False)
        message = self._by_id.get(message_id)
        if message is None or message.fence != fence:
            return None
        message.cancelled = True
        return message

    def begun(self) -> list[TakenMessage]:
        """The messages whose attempts run."""
        return [message for message in tuple(self._by_id.values()) if message.begun]

    def __len__(self) -> int:
        return len(self._by_id)

    def ended(self, message: TakenMessage) -> None:
        """Its attempt has ended here: there is room for another."""
        # Without the lock, which every thread would need for every message: each step is one of the interpreter's.
        if message.ended:
            return
        message.ended = True
        self._ended += message.begun  # only a measure: one that is lost in a race does not matter
        known = self._by_id.pop(message.message_id, message)
        if known is not message:
            self._by_id[message.message_id] = known  # it was taken again meanwhile
        if self._reader_waits and self._room() > 0:
            with self._arrived:
                self._reader_waits = False
                self._room_made.notify()

    def stored(self, stream: str, entry: str) -> None:
        """The server knows that it has ended."""
        self._entries.discard((stream, entry))

    def knows(self, stream: str, entry: str) -> bool:
        """Whether this process knows that it was given the entry."""
        return (stream, entry) in self._entries

    def wait_for_room(self, timeout: float) -> int:
        """How many messages may be taken now; waits for room, so many seconds at most."""
        with self._arrived:
            self._measure()
            # Said before looking: who ends an attempt looks for it after that.
            self._reader_waits = True
            if self._room() == 0 and self._open:
                self._room_made.wait(timeout)
                self._measure()
            self._reader_waits = False
            return self._room()

    def surplus(self) -> int:
        """How many messages too many are held: attempts take longer now than when they were taken."""
        with self._arrived:
            self._measure()
            return max(0, len(self._by_id) - self._threads - self._ahead - self._threads // 2)

    def is_ahead(self) -> bool:
        """Whether more messages are held than threads run."""
        return len(self._by_id) > self._threads

    def take_waiting(self) -> list[TakenMessage]:
        """Empties the inboxes."""
        with self._arrived:
            waiting = [message for inbox in self._inboxes.values() for message in inbox]
            for inbox in self._inboxes.values():
                inbox.clear()
        return waiting

    def take_back(self) -> list[TakenMessage]:
        """Ends the taking: what waits in the inboxes, to be given back."""
        with self._arrived:
            self._open = False
            self._arrived.notify_all()
            self._room_made.notify_all()
        return self.take_waiting()

    def forget(self) -> None:
        """Drops what waits: it has been given to others."""
        with self._arrived:
            for inbox in self._inboxes.values():
                for message in inbox:
                    self._by_id.pop(message.message_id, None)
                inbox.clear()
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
