"""Histograms of times: buckets, and percentiles of what is in them."""

from __future__ import annotations

import math
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given

from worker.history.histogram import bucket, middle_ms, percentiles

times = st.floats(0.1, 1e9)


@given(times)
def test_a_time_is_within_a_twentieth_of_the_middle_of_its_bucket(ms: float) -> None:
    """Of microseconds as of days."""
    assert middle_ms(int(bucket(ms))) == pytest.approx(ms, rel=0.05)


@given(times, times)
def test_a_longer_time_is_in_no_earlier_bucket(one: float, two: float) -> None:
    """Buckets are in the order of times."""
    assert (int(bucket(one)) <= int(bucket(two))) or one > two


@given(st.lists(times, min_size=1, max_size=200), st.sampled_from([0.50, 0.95, 0.99]))
def test_a_percentile_is_within_a_twentieth_of_the_time_at_its_place(values: list[float], share: float) -> None:
    """Also of one time, or of two."""
    found = percentiles(Counter(int(bucket(one)) for one in values))
    assert found is not None
    assert found.count == len(values)
    by_share = {0.50: found.p50_ms, 0.95: found.p95_ms, 0.99: found.p99_ms}
    true = sorted(values)[math.ceil(share * len(values) - 1e-9) - 1]
    assert by_share[share] == pytest.approx(true, rel=0.05)


def test_a_bucket_ends_where_the_reference_says() -> None:
    """Bucket n ends at 0.1 ms * 1.1**n; what is shorter is in the first, what is not known in none."""
    assert [bucket(ms) for ms in (None, 0, 0.05, 0.1)] == ["", "0", "0", "0"]
    assert [bucket(0.1 * 1.1**number * 0.999) for number in (1, 2, 100)] == ["1", "2", "100"]
    assert [bucket(0.1 * 1.1**number * 1.001) for number in (1, 2, 100)] == ["2", "3", "101"]


def test_nothing_has_no_percentiles() -> None:
    """Neither no buckets nor empty ones."""
    assert percentiles({}) is None
    assert percentiles({3: 0}) is None
