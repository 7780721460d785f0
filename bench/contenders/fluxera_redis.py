"""Fluxera on a Redis stream; its command is told to take uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import fluxera

from contenders.stamps import REDIS_URL, work

broker = fluxera.RedisBroker(REDIS_URL, namespace="bench")
noop = fluxera.actor(broker=broker, actor_name="noop")(work)


def enqueue(numbers: Iterable[int]) -> None:
    async def send() -> None:
        for number in numbers:
            await noop.send(number)

    asyncio.run(send())
