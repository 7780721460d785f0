"""The taken messages that a process had when it died: one of them may be why, and take this one down too.

Few of them begin at once, so that the culprit can be told from those beside it; it must never take long until the
others have begun.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from worker.broker.taken import TakenMessage

FEW = 8
"""The most messages that begin at once after they were lost once. Those that were lost more often begin alone."""

WATCHED = 2.0
"""Seconds for which a message that was lost once is watched before another may begin in its place."""

_WATCHED_LONGER = 8
"""Each further loss multiplies that time: a message that takes long to kill its process is alone in the end."""


class Suspects:
    """The account of these messages in this process; any thread may call it."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], TakenMessage] = {}
        self._seen_at: dict[tuple[str, int], float] = {}

    def add(self, message: TakenMessage) -> None:
        """Adds a taken message that was lost."""
        self._held[message.message_id, message.fence] = message

    def remove(self, message: TakenMessage) -> None:
        """Removes a message that has ended here."""
        self._held.pop((message.message_id, message.fence), None)
        self._seen_at.pop((message.message_id, message.fence), None)

    def clear(self) -> None:
        """Removes all."""
        self._held.clear()
        self._seen_at.clear()

    def allowed(self) -> tuple[int, int]:
        """The number of messages that may be taken now: of those lost more than once, and of those lost once."""
        watched = [message for message, _ in self._watched()]
        if any(message.losses > 1 for message in watched):
            return 0, 0
        return int(not watched), max(0, FEW - len(watched))

    def changes_in(self) -> float | None:
        """Seconds until another may begin although none has ended, or None: that must be waited for."""
        left = [seconds for _, seconds in self._watched() if seconds is not None]
        return min(left) if left else None

    def _watched(self) -> Iterator[tuple[TakenMessage, float | None]]:
        """The messages that are watched, and for how many seconds yet; None: as long as they have not begun."""
        now = time.monotonic()
        for key, message in list(self._held.items()):
            if message.run is None:
                yield message, None
                continue
            left = self._seen_at.setdefault(key, now) + WATCHED * _WATCHED_LONGER ** (message.losses - 1) - now
            if left > 0:
                yield message, left
