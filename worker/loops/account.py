"""What the calls of one attempt leave to it: how long loops were blocked, and blocking calls that go on.

The bridge and the thread pool write here; the attempt reads it. Neither knows the other.
"""

from __future__ import annotations

import concurrent.futures
from contextvars import ContextVar
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Account:
    """What the calls of one attempt leave to it.

    Attributes:
        blocked: How long its loops were blocked.
        unfinished: Blocking calls that still run in the thread pool although nobody awaits them any more.
    """

    blocked: Blocked = field(default_factory=Blocked)
    unfinished: list[concurrent.futures.Future[Any]] = field(default_factory=list)

    def wait(self) -> None:
        """Waits for the unfinished calls: until they end, their message is nobody else's."""
        while self.unfinished:
            concurrent.futures.wait([self.unfinished.pop()])


account: ContextVar[Account | None] = ContextVar("account", default=None)
"""The account of the attempt that runs in this context, or None."""
