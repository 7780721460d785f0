"""arq."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from contenders.stamps import AT_ONCE, REDIS_URL, work


async def noop(context: dict[str, Any], number: int) -> None:
    del context
    await work(number)


class WorkerSettings:
    """The settings for the `arq` command."""

    functions = (noop,)
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
    max_jobs = AT_ONCE


def enqueue(numbers: Iterable[int]) -> None:
    async def send() -> None:
        pool = await create_pool(WorkerSettings.redis_settings)
        for number in numbers:
            await pool.enqueue_job("noop", number)
        await pool.aclose()

    asyncio.run(send())
