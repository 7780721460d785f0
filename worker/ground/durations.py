"""Durations as people write them: `500ms`, `10s`, `5m`, `1h`, `7d`, or a number of seconds.

The settings and the command line read them; all other modules use `timedelta`. Calls take seconds too.
"""

from __future__ import annotations

import contextlib
import math
import re
from datetime import timedelta

from worker.ground.texts import shown

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Possessive quantifiers: a long text that is not a duration must be refused at once.
_PART = re.compile(r"(\d++(?:\.\d++)?+)\s*+(ms|s|m|h|d)?+")
_WHOLE = re.compile(rf"\s*+(?:{_PART.pattern}\s*+)++")


def parse_duration(text: str) -> timedelta:
    """Reads texts such as `90`, `1.5h` and `1h 30m`; a bare number is seconds.

    Raises:
        ValueError: The text is not a duration; the message shows how to write one.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"'{shown(text)}' is not a duration: write 500ms, 10s, 5m, 1h, 7d, or a number of seconds")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit or "s"] for number, unit in _PART.findall(text)))
    except OverflowError as error:
        raise ValueError(f"'{shown(text)}' is too long a duration: at most 999999999d") from error


def in_seconds(name: str, given: object) -> float:
    """A time that a program gives in seconds, or as a `timedelta`.

    Raises:
        TypeError: It is neither; the text names it as `name`.
    """
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, int | float) and not isinstance(given, bool):
        with contextlib.suppress(OverflowError):
            seconds = float(given)
            if not math.isnan(seconds):
                return seconds
    raise TypeError(f"{name}={shown(repr(given))}: write seconds, such as 30, or a timedelta")


def format_duration(duration: timedelta | float) -> str:
    """Writes a duration so that `parse_duration` reads it: in whole units, or rounded to 0.1 s (below 1 s, to 1 ms)."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    for unit in ("d", "h", "m", "s"):
        size = _UNITS[unit]
        if abs(seconds) >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    if abs(seconds) >= 1:
        return f"{seconds:.1f}s"
    return f"{seconds * 1000:.0f}ms"
