"""The account of an attempt's calls: the time for which loops were blocked, and the blocking calls that still run.

The bridge and the thread pool write it, and the attempt reads it. They do not know each other.
"""

from __future__ import annotations

import concurrent.futures
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Blocked:
    """The stalls of a loop: their seconds in all, the seconds of the longest, and its place or an empty text."""

    seconds: float = 0.0
    worst: float = 0.0
    where: str = ""

    def add(self, seconds: float, where: str) -> None:
        """Adds a stall."""
        self.seconds += seconds
        if seconds >= self.worst:
            self.worst, self.where = seconds, where or self.where


class Account:
    """The account of one attempt's calls. Most stay empty, and an empty one costs next to nothing.

    Attributes:
        blocked: The stalls of its loops, or None.
    """

    __slots__ = ("_unfinished", "blocked")

    def __init__(self) -> None:
        self.blocked: Blocked | None = None
        self._unfinished: list[concurrent.futures.Future[Any]] | None = None

    def add_blocked(self, seconds: float, where: str) -> None:
        """Adds a stall."""
        if self.blocked is None:
            self.blocked = Blocked()
        self.blocked.add(seconds, where)

    def add_unfinished(self, call: concurrent.futures.Future[Any]) -> None:
        """Adds a blocking call that still runs in the thread pool, but is no longer awaited."""
        if self._unfinished is None:
            self._unfinished = []
        self._unfinished.append(call)

    def wait(self) -> None:
        """Waits for the unfinished calls, so that no other attempt of the message begins before they end."""
        while self._unfinished:
            concurrent.futures.wait([self._unfinished.pop()])


account: ContextVar[Account | None] = ContextVar("account", default=None)
"""The account of the attempt that runs in this context, or None."""
