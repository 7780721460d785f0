"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.ground.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("500ms", 0.5), ("10s", 10), ("1.5h", 5400), ("1h 30m", 5400), (" 7d ", 604800), ("0", 0)],
)
def test_what_people_write_is_read(text: str, seconds: float) -> None:
    """Units, sums and bare seconds are durations."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "x", "10 parsecs", "-1s", "1h-", "s", "nan", "1e9d", "9" * 400 + "d"])
def test_what_is_no_duration_is_refused_with_what_is(text: str) -> None:
    """The error shows how to write one."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_what_is_written_for_people_is_near_what_it_was(milliseconds: int) -> None:
    """Formatting loses at most a twentieth."""
    duration = timedelta(milliseconds=milliseconds)
    back = parse_duration(format_duration(duration))
    assert abs(back - duration) <= max(duration / 20, timedelta(milliseconds=1))


@given(st.sampled_from(["ms", "s", "m", "h", "d"]), st.integers(1, 59))
def test_whole_units_survive_the_way_there_and_back(unit: str, number: int) -> None:
    """A setting is shown as it can be written."""
    duration = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(duration)) == duration
