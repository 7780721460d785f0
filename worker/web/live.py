"""The live tail: one reader of the server's tail for all who follow it."""

from __future__ import annotations

from redis import asyncio as redis_asyncio


class LiveTail:
    """Reads the tail once for everybody."""

    def __init__(self, client: redis_asyncio.Redis) -> None:
        self._client = client

    async def close(self) -> None:
        """Ends all who follow."""
