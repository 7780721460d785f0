"""Whether messages are being worked on: one verdict with its reasons, for probes of containers and for people.

*Unreachable*: the server does not answer, so nothing can be said of the rest. *Degraded*: it answers, and something
keeps messages from being stored or worked on. *Healthy*: nothing does. What failed, waits or is paused on purpose is
no matter of health: `worker status` shows it. Changes nothing on the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import redis

from worker.bridge import run_async_in_new_loop
from worker.connection import check_server
from worker.errors import ServerUnreachable
from worker.history.answers import QueueInfo, WorkerInfo
from worker.history.query import ask, queues, workers
from worker.settings import Settings

PROBE_TIMEOUT = 2.0
"""Seconds in which a server must answer a probe: `connect(settings, timeout=PROBE_TIMEOUT)`."""

_BRIDGE_TIMEOUT = 5.0

# A script that says nothing of what it does is refused whenever a write would be, and this one writes nothing.
_AS_IF_TO_WRITE = "#!lua\nreturn 1"


class HealthState(StrEnum):
    """The verdict."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Health:
    """How the system fares.

    Attributes:
        state: The verdict.
        reasons: What is wrong, a line each; empty when it is healthy.
        workers: How many worker processes are alive.
    """

    state: HealthState
    reasons: tuple[str, ...] = ()
    workers: int = 0


def check_health(client: redis.Redis, settings: Settings, *, host: str | None = None) -> Health:
    """Looks at server, bridge, workers and queues.

    Not to be called in a running loop: `await run_in_thread_pool(check_health, client, settings)`.

    Args:
        client: Of the server; one that gives up soon makes a probe that answers soon.
        settings: Whose server it is.
        host: Only the workers of this host are looked at; one of them must be alive.
    """
    try:
        check_server(client, settings)
        refusal = write_refusal(client)
        found = ask(client, workers())
        waiting = ask(client, queues())
    except ServerUnreachable as error:
        return Health(HealthState.UNREACHABLE, (str(error),))
    alive = [one for one in found if one.alive and host in (None, one.host)]
    reasons = [*([refusal] if refusal else []), *_complaints_of_the_bridge()]
    if settings.broker == "streams":  # Dramatiq's own broker tells nothing of its workers
        reasons += _complaints_of(alive, host)
        reasons += [] if host else _unread(waiting, alive)
    return Health(HealthState.DEGRADED if reasons else HealthState.HEALTHY, tuple(reasons), len(alive))


def write_refusal(client: redis.Redis) -> str | None:
    """Why the server would refuse to store anything now; `None`: it would not.

    Raises:
        ServerUnreachable: It did not answer.
    """
    try:
        client.eval(_AS_IF_TO_WRITE, 0)
    except redis.ResponseError as error:
        return f"the server refuses writes: {' '.join(str(error).split())}"
    except (redis.RedisError, OSError) as error:
        raise ServerUnreachable(f"the server did not answer: {error}") from error
    return None


def _complaints_of_the_bridge() -> Iterator[str]:
    try:
        run_async_in_new_loop(lambda: asyncio.sleep(0), timeout=_BRIDGE_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        yield f"no coroutine can run through the bridge: {type(error).__name__}: {' '.join(str(error).split())}"


def _complaints_of(alive: Sequence[WorkerInfo], host: str | None) -> Iterator[str]:
    if not alive:
        yield f"no worker is alive{f' on {host}' if host else ''}: start one with `worker up` or `dramatiq`"
    for worker in alive:
        yield from (f"worker {worker.host}:{worker.pid}: {error}" for error in worker.errors)


def _unread(waiting: Sequence[QueueInfo], alive: Sequence[WorkerInfo]) -> Iterator[str]:
    """What waits where nobody takes it, though nobody has paused it."""
    read = {queue for worker in alive for queue in worker.queues}
    for queue in waiting if alive else ():
        if queue.queued and not queue.pause and queue.name not in read:
            yield f"queue {queue.name}: {queue.queued} messages wait and no worker takes them: start one that does"
