"""The times among the options of `@actor` and `configure`: a `timedelta`, a text such as `10m`, infinity or None.

A bare number is never taken: it is milliseconds in Dramatiq, and its reader may well mean seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import TypeAlias

from worker.ground.durations import parse_duration
from worker.ground.texts import shown

Time: TypeAlias = timedelta | str | float | None
"""A time: a `timedelta`, a text such as `"10m"`, `math.inf`, or None for as it is without the option."""

TIMES = frozenset({"time_limit", "max_age", "min_backoff", "max_backoff", "result_ttl", "delay"})
"""The options that are milliseconds in Dramatiq."""

FOREVER_MS = 3_155_760_000_000
"""Milliseconds of a century: JSON knows no infinity, and no clock a longer wait."""

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def in_milliseconds(options: Mapping[str, object]) -> dict[str, object]:
    """The options as Dramatiq has them: times in milliseconds, without those that are None.

    Raises:
        TypeError: A time is a bare number; the line gives both readings. Or it is something else altogether.
        ValueError: A time is no duration, or is negative.
    """
    read = {name: milliseconds(name, value) if name in TIMES else value for name, value in options.items()}
    return {name: value for name, value in read.items() if value is not None or name not in TIMES}


def milliseconds(name: str, value: object) -> int | None:
    """A time in milliseconds, or None.

    Raises:
        TypeError: It is a bare number; the line gives both readings. Or it is something else altogether.
        ValueError: It is no duration, or is negative.
    """
    if value is None:
        return None
    if isinstance(value, float) and value == math.inf:
        return FOREVER_MS
    if isinstance(value, str):
        value = _read(name, value)
    if not isinstance(value, timedelta):
        raise TypeError(_refusal(name, value))
    exact = value / timedelta(milliseconds=1)
    if exact < 0:
        raise ValueError(f"{name}={value!r}: write a time that is not negative")
    return min(max(round(exact), int(exact > 0)), FOREVER_MS)


def check_delay(delay: object) -> None:
    """Checks a delay that is given as Dramatiq has it, in milliseconds.

    Raises:
        TypeError: It is no number of milliseconds.
    """
    if not isinstance(delay, int | float) or isinstance(delay, bool) or not abs(delay) < math.inf:
        raise TypeError(
            f"delay={shown(repr(delay))}: write milliseconds, such as 10_000; "
            "`configure(delay=…)` takes a timedelta, '10m' and math.inf too"
        )


def _read(name: str, text: str) -> timedelta:
    number = _number_in(text)
    if number is not None:
        raise TypeError(_refusal(name, number, text))
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError(f"{name}={shown(text)!r}: write a time such as '500ms', '10s', '5m', '1h' or '7d'") from None


def _number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _refusal(name: str, value: object, text: str | None = None) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < FOREVER_MS:
        return f"{name}={(text or repr(value))[:100]}: write a timedelta, a text such as '10m', math.inf, or None"
    return (
        f"{name}={text or repr(value)}: write {_as_milliseconds(value)} if milliseconds were meant, "
        f'"{_spelled_out(value * 1000)}" if seconds'
    )


def _as_milliseconds(number: float) -> str:
    if number % 1000 == 0:
        return f'timedelta(seconds={number / 1000:.0f}) or "{number / 1000:.0f}s"'
    return f'timedelta(milliseconds={number:g}) or "{number:g}ms"'


def _spelled_out(left: float) -> str:
    """Milliseconds in as many units as it takes, such as `16h40m`."""
    parts = []
    left = round(left)
    for unit, size in _UNITS:
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
