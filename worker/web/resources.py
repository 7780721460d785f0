"""The resources of one application: settings, clients of the server, the live tail, keys.

Clients are opened at their first use, on the loop that uses them, because a mounted application has no start of its
own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cached_property

from worker.loops.account import Blocked
from worker.loops.loop_resources import loop_resource
from worker.operations.health import PROBE_TIMEOUT
from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.connection import aconnect, connect
from worker.settings import Settings
from worker.web.guesses import Guesses
from worker.web.live import LiveTail
from worker.web.logged_out import LoggedOut
from worker.web.metrics import Metrics
from worker.web.tokens import Keys
from worker.web.turnstile import open_turnstile


class Resources:
    """The resources of one application.

    Attributes:
        settings: The application's settings.
        keys: The keys that recognize tokens, sessions and forms.
        guesses: The wrong tokens that visitors tried.
        logged_out: The sessions that were ended before their time.
        redis: Opens the client of the running loop; await its call.
        tail: Opens the live tail of the running loop; await its call.
        turnstile: Opens the turnstile of the running loop; await its call.
        blocked: The stalls of the loop since the start, if it is watched.
        metrics: The metrics for Prometheus.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings)
        self.redis = loop_resource(self._open_redis)
        self.tail = loop_resource(self._open_tail)
        self.turnstile = loop_resource(open_turnstile)
        self.guesses = Guesses(self.redis)
        self.logged_out = LoggedOut(self.redis)
        self.blocked = Blocked()
        self.metrics = Metrics(lambda: self.client, self.settings, self.blocked)
        self._tails: list[LiveTail] = []

    @cached_property
    def client(self) -> RedisClient:
        """The client for blocking calls in the thread pool: `await run_in_thread_pool(cancel, client, …)`."""
        return connect(self.settings)

    @cached_property
    def probing(self) -> RedisClient:
        """The client for probes, with a short time-out."""
        return connect(self.settings, timeout=PROBE_TIMEOUT)

    async def _open_redis(self) -> AsyncIterator[AsyncRedisClient]:
        opened = await aconnect(self.settings)
        yield opened
        await opened.aclose()

    async def _open_tail(self) -> AsyncIterator[LiveTail]:
        tail = LiveTail(await self.redis())
        self._tails.append(tail)
        yield tail
        self._tails.remove(tail)
        await tail.close()

    def stop_following(self) -> None:
        """Ends the live tails, which otherwise last as long as their readers."""
        for tail in self._tails:
            tail.stop()
