"""Repid on a Redis stream, with uvloop. It has no command: `python -m contenders.repid_redis` is its worker."""

from __future__ import annotations

from collections.abc import Iterable

import uvloop
from repid import Repid, Router
from repid.connections.redis import RedisServer

from contenders.stamps import AT_ONCE, REDIS_URL, work

app = Repid(title="bench")
# It reads ten messages at a time: more make it slower.
app.servers.register_server("default", RedisServer(REDIS_URL), is_default=True)
router = Router()
router.actor(name="noop")(work)
app.include_router(router)


def enqueue(numbers: Iterable[int]) -> None:
    async def send() -> None:
        async with app.servers.default.connection():
            for number in numbers:
                await app.send_message_json(channel="default", payload={"number": number}, headers={"topic": "noop"})

    uvloop.run(send())


async def run_worker() -> None:
    async with app.servers.default.connection():
        await app.run_worker(tasks_limit=AT_ONCE)


if __name__ == "__main__":
    uvloop.run(run_worker())
