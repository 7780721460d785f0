"""taskiq on a Redis stream, which acknowledges; with uvloop, which it uses where installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from taskiq_redis import RedisStreamBroker

from contenders.stamps import REDIS_URL, stamp

broker = RedisStreamBroker(REDIS_URL)


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
