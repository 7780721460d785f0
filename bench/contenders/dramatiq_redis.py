"""Dramatiq on its own Redis broker, with the middleware it ships with."""

from __future__ import annotations

from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from contenders.stamps import MORE_QUEUES, REDIS_URL, stamp

dramatiq.set_broker(RedisBroker(url=REDIS_URL))


@dramatiq.actor
def noop(number: int) -> None:
    stamp(number)


for queue in MORE_QUEUES:
    dramatiq.actor(actor_name=f"noop_{queue}", queue_name=queue)(stamp)


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.send(number)
