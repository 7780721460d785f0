"""Our broker: `@actor` on an async function, which runs on the shared loop; every message with its full history."""

from __future__ import annotations

from collections.abc import Iterable

import dramatiq

import worker
from contenders.stamps import work

dramatiq.set_broker(worker.create_broker())
noop = worker.actor(work)


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.send(number)


def enqueue_many(numbers: Iterable[int]) -> None:
    noop.send_many([noop.message(number) for number in numbers])
