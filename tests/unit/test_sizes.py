"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.ground.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("0", 0), ("1000", 1000), ("12 B", 12), ("64k", 64_000), ("1.5kB", 1_500), (" 60MB ", 60_000_000)),
        *(
            ("512MiB", 512 * 2**20),
            ("512Mi", 512 * 2**20),
            ("512mib", 512 * 2**20),
            ("2GB", 2 * 10**9),
            ("1 TiB", 2**40),
        ),
    ],
)
def test_what_people_write_is_read(text: str, size: int) -> None:
    """Thousands, powers of 1024, and bare bytes are sizes, in capital letters or not."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "10 parsecs", "-1", "1.MB", "MB", "nan", "1e9", "9" * 400, "1 kk"])
def test_what_is_no_size_is_refused_with_what_is(text: str) -> None:
    """The error shows how to write one."""
    with pytest.raises(ValueError, match="is not a size: write 60MB"):
        parse_size(text)


@given(st.integers(0, 10**16))
def test_what_is_written_for_people_is_near_what_it_was(size: int) -> None:
    """Formatting loses at most one in two hundred."""
    assert abs(parse_size(format_size(size)) - size) <= size / 200
