"""Our broker: one message in ten fails for good, with a traceback of many frames and a long text."""

from __future__ import annotations

from collections.abc import Iterable

import dramatiq

from contenders.stamps import stamp
from worker import create_broker

dramatiq.set_broker(create_broker())

FRAMES = 60
TEXT = "what the service answered, in full; " * 100


def down(frames: int, number: int) -> None:
    """Calls `deeper`, which calls it again: Python shortens a traceback of one function that only calls itself."""
    if frames == 0:
        raise RuntimeError(f"message {number}: {TEXT}")
    deeper(frames - 1, number)


def deeper(frames: int, number: int) -> None:
    down(frames, number)


@dramatiq.actor(max_retries=0)
def sometimes_fails(number: int) -> None:
    stamp(number)
    if number % 10 == 0:
        down(FRAMES // 2, number)


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        sometimes_fails.send(number)
