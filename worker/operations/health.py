"""Checks whether messages are being run: one verdict with its reasons, for probes of containers and for people.

*Unreachable*: the server does not answer, so the rest is not known. *Degraded*: it answers, but an obstacle keeps
messages from being stored or run. *Healthy*: there is no obstacle. Failed or waiting messages and paused queues do not
matter here: `worker status` shows them. Nothing changes on the server.
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

# The server refuses a script without declared flags whenever it refuses writes. This script writes nothing.
_AS_IF_TO_WRITE = "#!lua\nreturn 1"


class HealthState(StrEnum):
    """The verdict."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Complaint:
    """A problem and its remedy."""

    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Health:
    """The health of the whole system.

    Attributes:
        state: The verdict.
        complaints: The problems; empty if it is healthy.
        workers: The number of live worker processes.
    """

    state: HealthState
    complaints: tuple[Complaint, ...] = ()
    workers: int = 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each problem with its remedy, as one line."""
        return tuple(str(one) for one in self.complaints)


def check_health(client: RedisClient, settings: Settings, *, host: str | None = None) -> Health:
    """Looks at server, bridge, workers and queues.

    Do not call it in a running loop: `await run_in_thread_pool(check_health, client, settings)`.

    Args:
        client: A client of the server; its time-out bounds the time of the check.
        settings: The settings that name the server.
        host: Looks only at the workers of this host, one of which must be alive; None for all hosts.
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
    if settings.broker == "streams":  # Dramatiq's own broker does not list its workers
        complaints += _complaints_of(alive, host)
        complaints += [] if host else _unread(waiting, alive)
    return Health(HealthState.DEGRADED if complaints else HealthState.HEALTHY, tuple(complaints), len(alive))


def unreachable(error: Exception, settings: Settings) -> Complaint:
    """The complaint about a server that does not answer."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return Complaint(
        f"no answer from Redis at {address(settings)} ({reason})",
        "check WORKER_REDIS_URL, that the server runs, and that this machine may reach it",
    )


def write_refusal(client: RedisClient) -> tuple[Complaint, ...]:
    """The complaint about a server that refuses writes; empty if it accepts them.

    Raises:
        redis.RedisError: The server did not answer.
    """
    try:
        client.eval(_AS_IF_TO_WRITE, 0)
    except redis.ResponseError as error:
        return (Complaint(f"the server refuses writes ({' '.join(str(error).split())})", "see `worker doctor`"),)
    return ()


def _complaints_of_the_bridge() -> Iterator[Complaint]:
    try:
        run_async_in_new_loop(lambda: asyncio.sleep(0), timeout=_BRIDGE_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - any error becomes a complaint
        said = " ".join(str(error).split())
        yield Complaint(f"no coroutine can run through the bridge ({type(error).__name__}: {said})", "restart it")


def _complaints_of(alive: Sequence[WorkerInfo], host: str | None) -> Iterator[Complaint]:
    if not alive:
        yield Complaint(f"no worker is alive{f' on {host}' if host else ''}", "start one: `worker up`, or `dramatiq`")
    for worker in alive:
        for error in worker.errors:
            yield Complaint(f"worker {worker.host}:{worker.pid}: {error}", "see its log")


def _unread(waiting: Sequence[QueueInfo], alive: Sequence[WorkerInfo]) -> Iterator[Complaint]:
    """A complaint for each queue with waiting messages that no worker reads, unless it is paused."""
    read = {queue for worker in alive for queue in worker.queues}
    for queue in waiting if alive else ():
        if queue.queued and not queue.pause and queue.name not in read:
            yield Complaint(f"{queue.queued} messages wait in queue {queue.name}, and no worker reads it", "start one")
