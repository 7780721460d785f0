"""The sessions that were ended by a log-out, before their time: for every web process of this namespace.

They are kept on the message server until they would have ended by themselves. While that does not answer, a process
knows only of the log-outs that it has seen itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import redis

from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.server.async_client import AsyncRedisClient
from worker.server.scripts import Argument, Script
from worker.web.tokens import Session

logger = get_logger(__name__)

WITHIN = 1.0
"""Seconds that a visitor waits for the message server, for each request."""

_END_SESSION, _HAS_ENDED = Script("end_session"), Script("has_ended")


class LoggedOut:
    """Ends sessions, and knows which have ended.

    Args:
        redis_client: Opens the client of the running loop.
    """

    def __init__(self, redis_client: Callable[[], Awaitable[AsyncRedisClient]]) -> None:
        self._redis_client = redis_client
        self._seen: dict[str, int] = {}

    async def end(self, session: Session) -> None:
        """Ends a session, here at once, and everywhere once the message server knows."""
        self._seen = {one: until for one, until in self._seen.items() if until > time.time()}
        self._seen[session.id] = session.until
        await self._ask(_END_SESSION, [session.id, session.until])

    async def has_ended(self, session: Session) -> bool:
        """Whether a session has ended, by a log-out or by itself."""
        if session.id in self._seen or session.until < time.time():
            return True
        return bool(await self._ask(_HAS_ENDED, [session.id]))

    async def _ask(self, script: Script, arguments: list[Argument]) -> object:
        """The script's answer, or None if there is none."""
        try:
            async with asyncio.timeout(WITHIN):
                return await script.arun(await self._redis_client(), arguments)
        except (redis.RedisError, OSError, WorkerError) as error:  # a time-out is an OSError
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning("the message server could not be asked about log-outs", error=reason)
            return None
