"""A client that has its namespace, so that each script that it runs knows its keys."""

from __future__ import annotations

from typing import Any

import redis

from worker.server.keys import Namespace


class RedisClient(redis.Redis):
    """A client of the server, as `connect` makes it.

    Args:
        namespace: The namespace of its scripts.
        options: The options of redis-py's client.
    """

    def __init__(self, namespace: Namespace, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().__init__(**options)
        self.namespace = namespace

    def client(self) -> RedisClient:
        """A client with a connection of its own from the same pool."""
        return RedisClient(self.namespace, connection_pool=self.connection_pool, single_connection_client=True)
