"""The account of an attempt's calls: the time for which loops were blocked, and the blocking calls that still run.

The bridge and the thread pool write it, and the attempt reads it. They do not know each other.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass
from math import inf
from typing import Any, cast

from worker.ground.durations import format_duration
from worker.ground.logs import get_logger
from worker.ground.scope import scope
from worker.settings import Settings

logger = get_logger(__name__)

_LOOK_EVERY = 0.2
"""Seconds between two looks at whether the process ends, while a call is waited for."""


@dataclass(slots=True)
class Blocked:
    """The stalls of a loop: their seconds in all, and the longest.

    Attributes:
        seconds: The seconds of all.
        worst: The seconds of the longest.
        began: The begin of the longest, on the monotonic clock.
        where: The place of the longest, or an empty text.
    """

    seconds: float = 0.0
    worst: float = 0.0
    began: float = 0.0
    where: str = ""

    def add(self, seconds: float, began: float, where: str) -> None:
        """Adds a stall."""
        self.seconds += seconds
        if seconds >= self.worst:
            self.worst, self.began, self.where = seconds, began, where or self.where

    def add_all(self, other: Blocked) -> None:
        """Adds the stalls of another loop."""
        rest = other.seconds - other.worst
        self.add(other.worst, other.began, other.where)
        self.seconds += rest


class Account:
    """The account of one attempt's calls. Most stay empty, and an empty one costs next to nothing.

    Args:
        owner: The attempt's actor and message, for people.

    Attributes:
        owner: The attempt's actor and message, for people.
        blocked: The stalls of its loops, or None.
        note: A text for the attempt's end, such as on the calls that could not be stopped, or empty.
    """

    __slots__ = ("_leave_at", "_unfinished", "blocked", "note", "owner")

    def __init__(self, owner: tuple[str, str] = ("", "")) -> None:
        self.owner = owner
        self.blocked: Blocked | None = None
        self.note = ""
        self._leave_at = inf
        self._unfinished: list[tuple[concurrent.futures.Future[Any], str]] | None = None

    def stalls(self) -> Blocked:
        """The stalls, to add some."""
        if self.blocked is None:
            self.blocked = Blocked()
        return self.blocked

    def add_unfinished(self, call: concurrent.futures.Future[Any], name: str) -> None:
        """Adds a blocking call, of a function of this name, that still runs but is no longer awaited."""
        if self._unfinished is None:
            self._unfinished = []
        self._unfinished.append((call, name))

    def leave_after(self, seconds: float) -> None:
        """From now on, waits at most this long for calls: the process ends, and its threads end with it."""
        self._leave_at = min(self._leave_at, time.monotonic() + seconds)

    @property
    def has_unfinished(self) -> bool:
        """Whether there are unfinished calls to wait for."""
        return bool(self._unfinished)

    def wait(self) -> None:
        """Waits for the unfinished calls, so that no other attempt of the message begins before they end.

        A call that goes on for longer than `WORKER_CLEANUP_TIMEOUT` is logged, and told in `note`.
        """
        while self._unfinished:
            call, name = self._unfinished.pop()
            for _ in self._looks_at(name):
                if not concurrent.futures.wait([call], _LOOK_EVERY).not_done:
                    break

    async def wait_on_loop(self) -> None:
        """Does what `wait` does, for an attempt on a loop."""
        while self._unfinished:
            call, name = self._unfinished.pop()
            waiter = asyncio.wrap_future(call)
            # Marks an error as seen: its caller is gone.
            waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
            for _ in self._looks_at(name):
                if not (await asyncio.wait([waiter], timeout=_LOOK_EVERY))[1]:
                    break

    def _looks_at(self, name: str) -> Iterator[None]:
        """One look at an unfinished call after another, until its caller finds it ended, or waits no more for it."""
        began = time.monotonic()
        patience = Settings.in_force().cleanup_timeout.total_seconds()
        is_told = False
        try:
            while time.monotonic() < self._leave_at:
                if not is_told and time.monotonic() - began >= patience:
                    is_told = True
                    logger.warning("an attempt waits for a blocking call that goes on", function=name)
                yield
            self._tell(f"{name} cannot be stopped, and ends with its process")
            is_told = False
        finally:
            if is_told:
                self._tell(f"waited {format_duration(time.monotonic() - began)} for {name}, which cannot be stopped")

    def add_note(self, text: str) -> None:
        """Adds a text for the attempt's end."""
        self.note = "; ".join(part for part in (self.note, text) if part)

    def _tell(self, text: str) -> None:
        logger.warning(text)
        self.add_note(text)


def own_account(context: Context | None = None) -> Account | None:
    """The account of the attempt that runs in a context, the present one if None is given; None outside attempts."""
    attempt = scope.get() if context is None else context.get(scope)
    return None if attempt is None else cast("Account", attempt.account)
