"""Words and numbers of the pages."""

from __future__ import annotations

from datetime import timedelta

import pytest

from worker.web.rendering import compact, duration, link, rate, share, short


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.04, "0.0 ms"),
        (15.2, "15 ms"),
        (9_200, "9.2 s"),
        (200_000, "3 m 20 s"),
        (7_500_000, "2 h 5 m"),
        (200_000_000, "2 d 7 h"),
        (timedelta(seconds=3), "3.0 s"),
    ],
)
def test_durations_are_written_for_people(ms: float | timedelta, text: str) -> None:
    """In the two units that matter."""
    assert duration(ms) == text


@pytest.mark.parametrize(("count", "text"), [(987, "987"), (9_999, "9,999"), (12_300, "12K"), (1_099_347, "1.1M")])
def test_large_counts_are_written_short(count: int, text: str) -> None:
    """So that they fit a tile."""
    assert compact(count) == text


def test_rates_and_shares_have_the_figures_that_matter() -> None:
    """Few for what is large, more for what is small."""
    assert [rate(value) for value in (0, 0.257, 12.34, 1_234.5)] == ["0.0", "0.26", "12.3", "1,234"]
    assert [share(value) for value in (0, 0.034, 0.75)] == ["0 %", "3.4 %", "75 %"]


def test_a_text_is_cut_to_its_first_line() -> None:
    """And says that it is."""
    assert short("one\ntwo") == "one"
    assert short("abcdef", 4) == "abc…"


def test_links_bear_only_what_is_set() -> None:
    """And whatever characters it has."""
    assert link("/messages", actor="a&b", queue="") == "/messages?actor=a%26b"
    assert link("/messages", actor=None) == "/messages"
