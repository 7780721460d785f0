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
from typing import Self

import redis

from worker.errors import ServerRefused, ServerUnreachable
from worker.ground.texts import counted
from worker.history.answers import QueueInfo, WorkerInfo
from worker.history.overview import queues, workers
from worker.history.query import ask
from worker.loops.bridge import run_async_in_new_loop
from worker.server.bounds import seconds_left, within
from worker.server.client import RedisClient
from worker.server.connection import address
from worker.server.troubles import described, is_refusal
from worker.server.wires import AS_IF_TO_WRITE
from worker.settings import Settings

PROBE_TIMEOUT = 3.0
"""Seconds that a check of the health may take as a whole."""


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


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """The health as JSON: the verdict, its reasons (a line each), and the number of live worker processes."""

    state: HealthState
    reasons: tuple[str, ...]
    workers: int

    @classmethod
    def of(cls, health: Health) -> Self:
        """Describes the health."""
        return cls(health.state, health.reasons, health.workers)


def check_health(client: RedisClient, settings: Settings, *, host: str | None = None) -> Health:
    """Looks at server, bridge, workers and queues; takes at most `PROBE_TIMEOUT`.

    Do not call it in a running loop: `await run_in_thread_pool(check_health, client, settings)`.

    Args:
        client: A client of the server.
        settings: The settings that name the server.
        host: Looks only at the workers of this host, one of which must be alive; None for all hosts.
    """
    with within(PROBE_TIMEOUT):
        return _check(client, settings, host)


def _check(client: RedisClient, settings: Settings, host: str | None) -> Health:
    try:
        refused = write_refusal(client)
        found = ask(client, workers())
        waiting = ask(client, queues())
    except (redis.RedisError, OSError, ServerUnreachable) as error:
        state = (
            HealthState.DEGRADED if isinstance(error, ServerRefused) or is_refusal(error) else HealthState.UNREACHABLE
        )
        return Health(state, (unreachable(error, settings),))
    alive = [one for one in found if one.alive and host in (None, one.host)]
    complaints = [*refused, *_complaints_of_the_bridge()]
    if settings.broker == "streams":  # Dramatiq's own broker does not list its workers
        complaints += _complaints_of(alive, host)
        complaints += [] if host else _unread(waiting, alive)
    return Health(HealthState.DEGRADED if complaints else HealthState.HEALTHY, tuple(complaints), len(alive))


def unreachable(error: Exception, settings: Settings) -> Complaint:
    """The complaint about a server that does not answer, or refuses to tell anything."""
    cause = (
        error.__cause__ if isinstance(error, ServerUnreachable) and isinstance(error.__cause__, Exception) else error
    )
    if isinstance(cause, ServerUnreachable):
        found, _, remedy = str(cause).rpartition(": ")  # of the embedded server
        return Complaint(found, remedy)
    return Complaint(*described(cause, address(settings)))


def write_refusal(client: RedisClient) -> tuple[Complaint, ...]:
    """The complaint about a server that refuses writes; empty if it accepts them.

    Raises:
        redis.RedisError: The server did not answer, or refuses this client.
    """
    try:
        client.eval(AS_IF_TO_WRITE, 0)
    except redis.exceptions.NoPermissionError:
        raise
    except redis.ResponseError as error:
        found, remedy = described(error)
        return (Complaint(f"the server refuses writes: {found}", remedy),)
    return ()


def _complaints_of_the_bridge() -> Iterator[Complaint]:
    try:
        run_async_in_new_loop(lambda: asyncio.sleep(0), timeout=seconds_left())
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
            waiting_messages = f"{counted(queue.queued, 'message')} {'waits' if queue.queued == 1 else 'wait'}"
            yield Complaint(f"{waiting_messages} in queue {queue.name}, and no worker reads it", "start one")
