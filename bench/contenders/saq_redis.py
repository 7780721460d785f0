"""SAQ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from saq import Queue

from contenders.stamps import AT_ONCE, REDIS_URL, work

queue = Queue.from_url(REDIS_URL)


async def noop(context: dict[str, Any], *, number: int) -> None:
    del context
    await work(number)


settings = {"queue": queue, "functions": [noop], "concurrency": AT_ONCE}


def enqueue(numbers: Iterable[int]) -> None:
    async def send() -> None:
        await queue.connect()
        for number in numbers:
            await queue.enqueue("noop", number=number)
        await queue.disconnect()

    asyncio.run(send())
