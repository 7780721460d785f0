"""Dramatiq on its own Redis broker: a coroutine, which its AsyncIO middleware runs while a worker thread waits."""

from __future__ import annotations

from collections.abc import Iterable

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO

from contenders.stamps import AT_ONCE, REDIS_URL, work

# The client's pool ends at 100 connections, unless it is told otherwise: acknowledgements of more threads would fail.
pool = redis.ConnectionPool.from_url(REDIS_URL, max_connections=AT_ONCE + 16)
broker = RedisBroker(connection_pool=pool)
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)
noop = dramatiq.actor(actor_name="noop")(work)


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.send(number)
