"""What the history answers with: plain typed data, one class a question."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from worker.history.events import StatusEvent
from worker.history.histogram import Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """What the server keeps of a message, or of a run outside a worker.

    Attributes:
        id: The message's id, or the run's.
        number: Counts all messages, in the order in which they were first enqueued.
        state: queued, delayed, running, completed, skipped, dead or cancelled.
        since: Since when it is in that state; when it is due, if it is delayed.
        attempts: How many attempts have begun.
        fence: How often it has been delivered, or could have been.
        priority: high, normal or low.
        actor: The actor's name; empty for a run outside a worker.
        queue: Its queue; empty for a run outside a worker.
        subject: What it is about.
        payload: The message as it was enqueued, JSON.
        events: What happened to it, oldest first.
        events_left_out: How many older events were dropped because there were too many.
    """

    id: str
    number: int
    state: str
    since: datetime
    attempts: int
    fence: int
    priority: str
    actor: str
    queue: str
    subject: Mapping[str, str]
    payload: bytes
    events: tuple[StatusEvent, ...]
    events_left_out: int

    @property
    def enqueued(self) -> datetime | None:
        """When it was enqueued, by the clock of who did; `None` for a run outside a worker."""
        at = self._payload().get("message_timestamp")
        return datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int | float) else None

    @property
    def arguments(self) -> str:
        """What the actor is called with, as a person writes it; shown only on request."""
        found = self._payload()
        args = [json.dumps(one, ensure_ascii=False) for one in found.get("args", ())]
        named = [f"{key}={json.dumps(one, ensure_ascii=False)}" for key, one in found.get("kwargs", {}).items()]
        return ", ".join(args + named)

    @property
    def last_error(self) -> str:
        """The newest error, type and text on a line; empty when no attempt failed."""
        for event in reversed(self.events):
            if event.error is not None:
                said = event.error.text.splitlines()
                return f"{event.error.type.rpartition('.')[2]}: {said[0] if said else ''}"
        return ""

    def _payload(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            found = json.loads(self.payload or b"{}")
            if isinstance(found, dict):
                return found
        return {}


def moment(ms: float) -> datetime:
    """The time of so many milliseconds since the epoch."""
    return datetime.fromtimestamp(ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the messages that match, newest first.

    Attributes:
        messages: They may be fewer than were asked for although there are more: where few of very many match.
        cursor: What to ask for the next page with; `None`: there is none.
    """

    messages: tuple[StoredMessage, ...]
    cursor: int | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many messages match, of those that were looked at. A `cursor` says that there are more: ask on, and add."""

    count: int
    cursor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorRates:
    """How an actor fared over a time.

    Attributes:
        actor: Its name.
        ended: How many attempts ended how: completed, skipped, failed, cancelled, lost.
        per_second: Attempts that ended, a second.
        error_share: Of those that ended, the share that failed or were lost; 0 to 1.
        duration: How long attempts took.
        wait: How long messages waited from the time they were due to the start of an attempt.
        blocked_ms: How long their event loops were blocked, in all.
    """

    actor: str
    ended: Mapping[str, int]
    per_second: float
    error_share: float
    duration: Percentiles | None
    wait: Percentiles | None
    blocked_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What happened in a minute, or an hour, in all: `seconds` is its length."""

    start: datetime
    seconds: float
    ended: Mapping[str, int]
    duration: Percentiles | None
    wait: Percentiles | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused a queue, and when."""

    by: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """A queue.

    Attributes:
        name: Its name.
        queued: How many messages wait.
        delayed: How many are delayed.
        running: How many run.
        oldest_seconds: The wait of the oldest message that no worker has been given, or None.
        pause: Who paused it; `None`: it is not paused.
    """

    name: str
    queued: int
    delayed: int
    running: int
    oldest_seconds: float | None
    pause: Pause | None


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """An attempt that a worker process runs."""

    message_id: str
    actor: str
    number: int
    started: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker process, as of its last heartbeat.

    Attributes:
        name: By which the server knows it.
        host: Where it runs.
        pid: Its process.
        alive: Whether its lease is held; what a dead one ran goes to others within seconds.
        started: When it began.
        heartbeat: When it was last heard of.
        queues: Those it reads.
        threads: How many attempts it can run at once.
        attempts: Those it runs.
        ahead: How many messages it has taken that no thread has begun.
        pool_busy: Threads of its pool for blocking calls that are busy.
        pool_size: How many it has.
        pool_waiting: Calls that wait for one.
        overruns: Coroutines that did not end in time when they were cancelled.
        events_dropped: STARTED and progress events that were not kept.
        ends_waiting: Ends of attempts that are not stored yet.
        errors: What goes wrong there now.
    """

    name: str
    host: str
    pid: int
    alive: bool
    started: datetime | None
    heartbeat: datetime
    queues: tuple[str, ...]
    threads: int
    attempts: tuple[HeldAttempt, ...]
    ahead: int
    pool_busy: int
    pool_size: int
    pool_waiting: int
    overruns: int
    events_dropped: int
    ends_waiting: int
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An action that somebody took.

    Attributes:
        time: When.
        by: Who.
        action: replay, purge, cancel, run_now, pause or resume.
        target: The filter, the ids or the queue that were named.
        count: How many messages it changed.
        ids: Their ids, the first hundred.
    """

    time: datetime
    by: str
    action: str
    target: str
    count: int
    ids: tuple[str, ...] = field(default=())
