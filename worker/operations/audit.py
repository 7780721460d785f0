"""Writes entries of the audit log that are no actions on stored messages: enqueueing, syncing, refused log-ins.

It never fails its caller, because the thing has happened already. An entry that cannot be written is in the log of the
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import redis

from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.ground.secrets import mask_secrets
from worker.operations.actions import this_user
from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.scripts import Argument, Script

logger = get_logger(__name__)

ENQUEUE: Final = "enqueue"
SYNC: Final = "sync"
LOG_IN_REFUSED: Final = "log_in_refused"

WITHIN = 2.0
"""Seconds that writing an entry may take while a visitor waits."""

_LONGEST_TARGET = 1_000
_MOST_IDS = 100

_WRITE = Script("write_audit")


def audit(client: RedisClient, action: str, target: str, ids: Sequence[str], *, by: str | None = None) -> None:
    """Writes an entry into the audit log.

    Args:
        client: A client of the server.
        action: enqueue or sync.
        target: The name of the actor or the repository.
        ids: The ids of the messages that were enqueued.
        by: The person that asked, or None for the user of this process.
    """
    by = by or this_user()
    with _failures_logged(action, target, by):
        _WRITE.run(client, _arguments(by, action, target, len(ids), ids))


async def aaudit(
    redis_client: Callable[[], Awaitable[AsyncRedisClient]], action: str, target: str, *, by: str, count: int
) -> None:
    """Writes an entry without messages, and waits at most `WITHIN` for it.

    Args:
        redis_client: Opens the client of the running loop.
        action: log_in_refused.
        target: The way in which a visitor tried to log in.
        by: The person that asked.
        count: The number of times.
    """
    with _failures_logged(action, target, by):
        async with asyncio.timeout(WITHIN):
            await _WRITE.arun(await redis_client(), _arguments(by, action, target, count, ()))


def _arguments(by: str, action: str, target: str, count: int, ids: Sequence[str]) -> list[Argument]:
    named = ids[:_MOST_IDS]
    return [mask_secrets(by), action, mask_secrets(target)[:_LONGEST_TARGET], count, len(named), *named]


@contextmanager
def _failures_logged(action: str, target: str, by: str) -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError, WorkerError) as error:  # a time-out is an OSError
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning("the audit log could not be written", action=action, target=target, by=by, error=reason)
