"""An actor that notes what it runs with."""

from __future__ import annotations

import dramatiq


def noting() -> tuple[dramatiq.Actor[[int], None], list[int]]:
    """An actor of the process's broker, and the numbers with which it has run."""
    runs: list[int] = []

    @dramatiq.actor
    def note(number: int) -> None:
        runs.append(number)

    return note, runs
