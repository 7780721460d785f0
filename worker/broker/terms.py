"""The terms on which messages are enqueued: when they are due, under which key, and whether an id counts once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from worker.broker.times import FOREVER_MS, milliseconds
from worker.ground.durations import parse_duration
from worker.ground.texts import shown

A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a send, beside the options that its messages carry.

    Attributes:
        delay_ms: Milliseconds for which a message waits at least, or None.
        at: The time before which it does not run, or None.
        key: The unique key, or empty.
        ttl_ms: Milliseconds after which the key is free, from when the message is due.
        until: The moment at which a message gives the key up.
        once: Whether a message is enqueued only if its id was never seen.
    """

    delay_ms: int | None = None
    at: datetime | None = None
    key: str = ""
    ttl_ms: int = round(A_DAY / timedelta(milliseconds=1))
    until: Literal["start", "end"] = "end"
    once: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether messages are enqueued whatever others there are."""
        return not self.key and not self.once

    def delay(self) -> int | None:
        """Milliseconds from now until a message is due, or None for at once."""
        if self.at is None:
            return self.delay_ms
        left = (self.at - datetime.now(UTC)) / timedelta(milliseconds=1)
        return math.ceil(left) if left > 0 else None


PLAIN_TERMS = Terms()
"""At once, whatever others there are."""


def read_terms(
    *,
    key: str | None = None,
    ttl: timedelta | str | float | None = None,
    until: Literal["start", "end"] | None = None,
    delay: timedelta | str | float | None = None,
    at: datetime | None = None,
    once: bool = False,
) -> Terms:
    """The terms as a program writes them; `ttl` may be a number of seconds.

    Raises:
        TypeError: A value is of another type; a bare number as `delay` is refused.
        ValueError: Values contradict each other, or `at` has no time zone.
    """
    if key is None and (ttl is not None or until is not None):
        raise ValueError(f"{'ttl' if ttl is not None else 'until'}= belongs to a key: give key= too")
    if key is not None and (not isinstance(key, str) or not key):
        raise TypeError(f"key={shown(repr(key))}: write a text, such as 'merge:42'")
    if until not in (None, "start", "end"):
        raise ValueError(f"until={shown(repr(until))}: write 'start' or 'end'")
    if at is not None:
        if delay is not None:
            raise ValueError("at= and delay= both say when a message is due: give one of them")
        _check_moment(at)
    return Terms(
        delay_ms=milliseconds("delay", delay),
        at=at,
        key=key or "",
        ttl_ms=_ttl(A_DAY if ttl is None else ttl),
        until=until or "end",
        once=once,
    )


def _ttl(given: timedelta | str | float) -> int:
    ttl = given
    if isinstance(given, str):
        try:
            ttl = parse_duration(given)  # here a number is seconds
        except ValueError:
            raise ValueError(f"ttl={shown(given)!r}: write a time such as '10s', '5m', '1h' or '7d'") from None
    elif isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < FOREVER_MS / 1000:
        ttl = timedelta(seconds=given)
    found = milliseconds("ttl", ttl)
    if not found:
        raise ValueError(f"ttl={shown(repr(given))}: write a time longer than nothing")
    return found


def _check_moment(at: datetime) -> None:
    if not isinstance(at, datetime):
        raise TypeError(f"at={shown(repr(at))}: write a datetime with a time zone")
    if at.tzinfo is None or at.utcoffset() is None:
        raise ValueError(
            f"at={at.isoformat()} has no time zone: write datetime(…, tzinfo=ZoneInfo('Europe/Berlin')), or tzinfo=UTC"
        )
