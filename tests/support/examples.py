"""How many examples Hypothesis tries: as many as find defects in `make test`, and a few of them in `make check`."""

from __future__ import annotations

import hypothesis

TEST, CHECK = "test", "check"
"""The profiles; `--hypothesis-profile` chooses."""

_FEWER = 4


def examples(number: int) -> int:
    """So many in `make test`, a quarter of them in `make check`."""
    return number if hypothesis.settings.get_current_profile_name() == TEST else max(1, number // _FEWER)
