"""Our broker: a sync actor on `create_broker`, every message with its full history."""

from __future__ import annotations

from collections.abc import Iterable

import dramatiq

import worker
from contenders.stamps import MORE_QUEUES, stamp

dramatiq.set_broker(worker.create_broker())


@dramatiq.actor
def noop(number: int) -> None:
    stamp(number)


for queue in MORE_QUEUES:
    dramatiq.actor(actor_name=f"noop_{queue}", queue_name=queue)(stamp)


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.send(number)


together = worker.actor(stamp)


def enqueue_many(numbers: Iterable[int]) -> None:
    together.send_many([together.message(number) for number in numbers])
