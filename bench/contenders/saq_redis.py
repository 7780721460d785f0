"""SAQ; its default of ten messages at once is meant for work that takes a while."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from saq import Queue

from contenders.stamps import REDIS_URL, stamp

queue = Queue.from_url(REDIS_URL)


async def noop(context: dict[str, Any], *, number: int) -> None:
    del context
    stamp(number)


settings = {"queue": queue, "functions": [noop], "concurrency": 100}


def enqueue(numbers: Iterable[int]) -> None:
    async def send() -> None:
        await queue.connect()
        for number in numbers:
            await queue.enqueue("noop", number=number)
        await queue.disconnect()

    asyncio.run(send())
