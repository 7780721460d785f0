"""The client of the running loop, which has its namespace too."""

from __future__ import annotations

from typing import Any

from redis import asyncio as redis_asyncio

from worker.server.keys import Namespace


class AsyncRedisClient(redis_asyncio.Redis):
    """A client of the server, as `aconnect` makes it.

    Args:
        namespace: The namespace of its scripts.
        options: The options of redis-py's client.
    """

    def __init__(self, namespace: Namespace, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().__init__(**options)
        self.namespace = namespace
