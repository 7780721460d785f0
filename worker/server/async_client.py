"""The client of the running loop, which has its namespace too, and a bound for each of its calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.client import Pipeline

from worker.server.keys import Namespace


class AsyncRedisClient(redis_asyncio.Redis):
    """A client of the server, as `aconnect` makes it.

    Args:
        namespace: The namespace of its scripts.
        bound: Seconds that each of its calls may take as a whole, with connecting and repeated tries.
        options: The options of redis-py's client.
    """

    def __init__(self, namespace: Namespace, *, bound: float = inf, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().__init__(**options)
        self.namespace = namespace
        self.bound = bound

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        """Executes a command, within the bound.

        Raises:
            redis.RedisError: The server's or the connection's error.
        """
        async with _within(self.bound):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """A pipeline that executes its commands within the bound."""
        return _BoundedPipeline(self.bound, self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _BoundedPipeline(Pipeline):
    def __init__(self, bound: float, *args: Any) -> None:  # noqa: ANN401 - redis-py's own
        self._bound = bound
        super().__init__(*args)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        async with _within(self._bound):
            return await super().execute(raise_on_error)


@contextlib.asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Bounds a call; its end has redis-py's type, as every other trouble of the call."""
    try:
        async with asyncio.timeout(None if seconds == inf else seconds):
            yield
    except TimeoutError as error:
        raise redis.TimeoutError(f"no answer within {seconds:g} s") from error
