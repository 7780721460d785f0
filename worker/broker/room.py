"""The messages that this process has taken for one of its runners, and the number that it may still take.

They are the messages that the runner runs, and those that it will run in the next moments: few messages if attempts
take long, so that other processes find work, and many if they are quick, so that the runner never waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from worker.broker.taken import TakenMessage

AHEAD = 0.1
"""Seconds of work that are taken ahead."""

MOST_AHEAD = 1_000

AT_ONCE = 400
"""The most messages that are taken in one round trip."""

_MEASURED_OVER = 0.02
_HALVED_AFTER = 0.25


class Runner(Protocol):
    """Runs attempts: the worker's threads, or the loop. Taken messages wait for it in its own order."""

    @property
    def size(self) -> int:
        """The most attempts at once."""

    def put_all(self, messages: Iterable[TakenMessage]) -> None:
        """Adds messages."""

    def drain(self) -> list[TakenMessage]:
        """Takes back all messages that were not begun, the most urgent first."""


class Room:
    """The account of one runner's messages.

    Args:
        runner: The runner.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._size = runner.size
        self._by_id: dict[str, TakenMessage] = {}
        self._ahead = 0
        self._ended = 0
        self._measured_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, message: TakenMessage) -> None:
        """Adds a taken message."""
        self._by_id[message.message_id] = message

    def get(self, message_id: str) -> TakenMessage | None:
        """The message of this id, or None."""
        return self._by_id.get(message_id)

    def remove(self, message: TakenMessage) -> None:
        """Removes a message that has ended here; any thread may call it."""
        # Without a lock, which every thread would need for every message: each step is atomic in the interpreter.
        self._ended += message.run is not None  # only a measure: a count that is lost in a race does not matter
        known = self._by_id.pop(message.message_id, message)
        if known is not message:
            self._by_id[message.message_id] = known  # the message was taken again meanwhile

    def drop(self, message: TakenMessage) -> None:
        """Removes a message that other processes have now."""
        self._by_id.pop(message.message_id, None)

    def free(self) -> int:
        """The number of messages that may be taken now."""
        free = self._size + self._ahead - len(self._by_id)
        # Not one by one, but not so many either that the runner waits until the last of them is read.
        return min(free, AT_ONCE) if free > 0 and free >= min(self._ahead // 2, AT_ONCE // 2) else 0

    def surplus(self) -> int:
        """The number of messages that are held too many, because attempts take longer now."""
        self.measure()
        return max(0, len(self._by_id) - self._size - self._ahead - self._size // 2)

    def is_ahead(self) -> bool:
        """Whether more messages are held than the runner runs."""
        return len(self._by_id) > self._size

    def has_soon(self) -> bool:
        """Whether there is no room, but will be in a moment: its attempts are quick."""
        return self._ahead >= AT_ONCE // 2 and self.is_ahead() and self.free() == 0

    def measure(self) -> None:
        """Measures the speed of attempts, which decides how many messages are taken ahead."""
        now = time.monotonic()
        passed = now - self._measured_at
        if passed < _MEASURED_OVER:
            return
        ahead = min(MOST_AHEAD, int(self._ended / passed * AHEAD))
        if ahead < self._ahead and passed < _HALVED_AFTER and not self.is_ahead():
            return  # its runner had nothing to do: that tells how slow the server is, and not how slow attempts are
        # Down only by steps: a moment without work says little.
        self._ahead = max(ahead, self._ahead >> max(1, int(passed / _HALVED_AFTER)))
        self._ended = 0
        self._measured_at = now
