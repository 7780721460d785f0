"""Histograms of times: each bucket is a tenth wider than the one before, so that times are exact to ±5 %."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

_START_MS = 0.1
_GROW = 1.1
_LOG_GROW = math.log(_GROW)


def bucket(ms: float | None) -> str:
    """The bucket of a duration, as the scripts name it, or "" for None; bucket n ends at 0.1 ms * 1.1**n."""
    if ms is None:
        return ""
    return "0" if ms <= _START_MS else str(math.ceil(math.log(ms / _START_MS) / _LOG_GROW))


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The number of measured times, and the limits of 50, 95 and 99 % of them, exact to ±5 %."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


def percentiles(counts: Mapping[int, int]) -> Percentiles | None:
    """The percentiles of a histogram of counts by bucket, or None if it is empty."""
    total = sum(counts.values())
    if total <= 0:
        return None
    numbers = sorted(counts)
    seen = list(itertools.accumulate(counts[number] for number in numbers))
    # Shares are fractions, so a rounded one may lie beyond the last bucket.
    places = [min(bisect_left(seen, share * total), len(numbers) - 1) for share in (0.50, 0.95, 0.99)]
    return Percentiles(total, *(middle_ms(numbers[place]) for place in places))


def middle_ms(number: int) -> float:
    """The middle of a bucket, in milliseconds."""
    return _START_MS if number <= 0 else _START_MS * _GROW ** (number - 0.5)
