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

from worker.errors import ServerUnreachable
from worker.history.answers import QueueInfo, WorkerInfo
from worker.history.overview import queues, workers
from worker.history.query import ask
from worker.loops.bridge import run_async_in_new_loop
from worker.server.client import RedisClient
from worker.server.connection import address
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
class Complaint:
    """Something that is wrong, and what to do about it."""

    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Health:
    """How the system fares.

    Attributes:
        state: The verdict.
        complaints: What is wrong; empty when it is healthy.
        workers: How many worker processes are alive.
    """

    state: HealthState
    complaints: tuple[Complaint, ...] = ()
    workers: int = 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong and what to do, a line each."""
        return tuple(str(one) for one in self.complaints)


def check_health(client: RedisClient, settings: Settings, *, host: str | None = None) -> Health:
    """Looks at server, bridge, workers and queues.

    Not to be called in a running loop: `await run_in_thread_pool(check_health, client, settings)`.

    Args:
        client: Of the server; one that gives up soon makes a probe that answers soon.
        settings: Whose server it is.
        host: Only the workers of this host are looked at; one of them must be alive.
    """
    try:
        client.ping()
        refused = write_refusal(client)
        found = ask(client, workers())
        waiting = ask(client, queues())
    except (redis.RedisError, OSError, ServerUnreachable) as error:
        return Health(HealthState.UNREACHABLE, (unreachable(error, settings),))
    alive = [one for one in found if one.alive and host in (None, one.host)]
    complaints = [*refused, *_complaints_of_the_bridge()]
    if settings.broker == "streams":  # Dramatiq's own broker tells nothing of its workers
        complaints += _complaints_of(alive, host)
        complaints += [] if host else _unread(waiting, alive)
    return Health(HealthState.DEGRADED if complaints else HealthState.HEALTHY, tuple(complaints), len(alive))


def unreachable(error: Exception, settings: Settings) -> Complaint:
    """What is to be said of a server that does not answer."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return Complaint(
        f"no answer from Redis at {address(settings)} ({reason})",
        "check WORKER_REDIS_URL, that the server runs, and that this machine may reach it",
    )


def write_refusal(client: RedisClient) -> tuple[Complaint, ...]:
    """Why the server would refuse to store anything now; empty: it would not.

    Raises:
        redis.RedisError: It did not answer.
    """
    try:
        client.eval(_AS_IF_TO_WRITE, 0)
    except redis.ResponseError as error:
        return (Complaint(f"the server refuses writes ({' '.join(str(error).split())})", "see `worker doctor`"),)
    return ()


def _complaints_of_the_bridge() -> Iterator[Complaint]:
    try:
        run_async_in_new_loop(lambda: asyncio.sleep(0), timeout=_BRIDGE_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        said = " ".join(str(error).split())
        yield Complaint(f"no coroutine can run through the bridge ({type(error).__name__}: {said})", "restart it")


def _complaints_of(alive: Sequence[WorkerInfo], host: str | None) -> Iterator[Complaint]:
    if not alive:
        yield Complaint(f"no worker is alive{f' on {host}' if host else ''}", "start one: `worker up`, or `dramatiq`")
    for worker in alive:
        for error in worker.errors:
            yield Complaint(f"worker {worker.host}:{worker.pid}: {error}", "see its log")


def _unread(waiting: Sequence[QueueInfo], alive: Sequence[WorkerInfo]) -> Iterator[Complaint]:
    """What waits where nobody takes it, though nobody has paused it."""
    read = {queue for worker in alive for queue in worker.queues}
    for queue in waiting if alive else ():
        if queue.queued and not queue.pause and queue.name not in read:
            yield Complaint(f"{queue.queued} messages wait in queue {queue.name}, and no worker reads it", "start one")
