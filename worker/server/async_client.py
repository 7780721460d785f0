"""The client of the running loop; as `client`, it bears its namespace."""

from __future__ import annotations

from typing import Any

from redis import asyncio as redis_asyncio

from worker.server.keys import Namespace


class AsyncRedisClient(redis_asyncio.Redis):
    """A client of the server, as `aconnect` makes it.

    Args:
        namespace: What its scripts work on.
        options: As redis-py's.
    """

    def __init__(self, namespace: Namespace, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().__init__(**options)
        self.namespace = namespace
