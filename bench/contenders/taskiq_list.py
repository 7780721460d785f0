"""taskiq on a Redis list, which does not acknowledge; with uvloop, which it uses where installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from taskiq_redis import ListQueueBroker

from contenders.stamps import REDIS_URL, stamp

broker = ListQueueBroker(REDIS_URL)


@broker.task
async def noop(number: int) -> None:
    stamp(number)


def enqueue(numbers: Iterable[int]) -> None:
    async def send() -> None:
        await broker.startup()
        for number in numbers:
            await noop.kiq(number)
        await broker.shutdown()

    asyncio.run(send())
