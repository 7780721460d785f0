"""What the calls of one attempt leave to it: how long loops were blocked, and blocking calls that go on.

The bridge and the thread pool write here; the attempt reads it. Neither knows the other.
"""

from __future__ import annotations

import concurrent.futures
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Blocked:
    """How long the loop was blocked during a call, in seconds in all, and where the longest time."""

    seconds: float = 0.0
    worst: float = 0.0
    where: str = ""

    def add(self, seconds: float, where: str) -> None:
        """Adds a stall."""
        self.seconds += seconds
        if seconds >= self.worst:
            self.worst, self.where = seconds, where or self.where


class Account:
    """What the calls of one attempt leave to it. Most leave nothing: making one costs next to nothing.

    Attributes:
        blocked: How long its loops were blocked, or None.
    """

    __slots__ = ("_unfinished", "blocked")

    def __init__(self) -> None:
        self.blocked: Blocked | None = None
        self._unfinished: list[concurrent.futures.Future[Any]] | None = None

    def add_blocked(self, seconds: float, where: str) -> None:
        """Adds a time for which a loop was blocked."""
        if self.blocked is None:
            self.blocked = Blocked()
        self.blocked.add(seconds, where)

    def add_unfinished(self, call: concurrent.futures.Future[Any]) -> None:
        """Adds a blocking call that still runs in the thread pool although nobody awaits it any more."""
        if self._unfinished is None:
            self._unfinished = []
        self._unfinished.append(call)

    def wait(self) -> None:
        """Waits for the unfinished calls: until they end, no other process may have their message."""
        while self._unfinished:
            concurrent.futures.wait([self._unfinished.pop()])


account: ContextVar[Account | None] = ContextVar("account", default=None)
"""The account of the attempt that runs in this context, or None."""
