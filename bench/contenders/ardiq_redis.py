"""ArdiQ, whose core in Rust reads a Redis stream and acknowledges; it keeps no results here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ardiq import Ardiq

from contenders.stamps import AT_ONCE, REDIS_URL, work

app = Ardiq(REDIS_URL, "bench", concurrency=AT_ONCE, result_ttl_ms=0)
noop = app.task(name="noop")(work)


def enqueue(numbers: Iterable[int]) -> None:
    async def send() -> None:
        for number in numbers:
            await noop.enqueue(number)

    asyncio.run(send())


def enqueue_many(numbers: Iterable[int]) -> None:
    asyncio.run(app.enqueue_many([noop.prepare(number) for number in numbers]))
