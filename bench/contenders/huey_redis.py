"""huey on Redis."""

from __future__ import annotations

from collections.abc import Iterable

from huey import RedisHuey

from contenders.stamps import REDIS_URL, stamp

huey = RedisHuey("bench", url=REDIS_URL)


@huey.task()
def noop(number: int) -> None:
    stamp(number)


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop(number)
