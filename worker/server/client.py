"""A client that bears its namespace, so that each script it runs knows its keys."""

from __future__ import annotations

from typing import Any

import redis

from worker.server.keys import Namespace


class RedisClient(redis.Redis):
    """A client of the server, as `connect` makes it.

    Args:
        namespace: What its scripts work on.
        options: As redis-py's.
    """

    def __init__(self, namespace: Namespace, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().__init__(**options)
        self.namespace = namespace

    def client(self) -> RedisClient:
        """One with a connection of its own from the same pool."""
        return RedisClient(self.namespace, connection_pool=self.connection_pool, single_connection_client=True)
