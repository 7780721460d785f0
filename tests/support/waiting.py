"""Waiting for conditions, never for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

TIMEOUT = 60.0
"""Seconds until a wait is given up: what is waited for takes a small part of them on a slow and busy machine."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


def wait_until(
    condition: Callable[[], object], timeout: float = TIMEOUT, explain: Callable[[], str] | None = None
) -> None:
    """Returns as soon as the condition holds.

    Raises:
        AssertionError: It did not within `timeout` seconds; `explain` adds to the message.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {condition}\n{explain() if explain else ''}")
        time.sleep(pause)
        # What takes long is not held up by whoever waits for it.
        pause = min(1.3 * pause, _LONGEST_PAUSE)
