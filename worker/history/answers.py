"""The answers of the history: plain typed data, a class for each question."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from worker.ground.sizes import format_size
from worker.history.events import State, StatusEvent
from worker.history.histogram import Percentiles
from worker.history.states import FAILURES, MessageState

NEARLY_FULL = 0.9
"""The share of the bound of dead letters from which on it is told that they will go; `lua/bytes.lua` has it too."""

_SETTLED = (MessageState.COMPLETED, MessageState.SKIPPED, MessageState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message, or a run outside a worker, as the server stores it.

    Attributes:
        id: The id of the message or run.
        number: The message's number; it counts all messages in the order of their first enqueueing.
        state: queued, delayed, running, completed, skipped, dead or cancelled.
        since: The time at which it entered its state; the due time if it is delayed.
        attempts: The number of attempts that have begun.
        fence: The number of its deliveries, or more.
        priority: high, normal or low.
        actor: The actor's name; empty for a run outside a worker.
        queue: The queue's name; empty for a run outside a worker.
        subject: The subject.
        payload: The message as it was enqueued, in JSON.
        events: Its events, oldest first.
        events_left_out: The number of older events that were dropped, because there were too many.
        follows: The time when it is due again after its end, because its own attempt has enqueued it, or None.
        arguments_dropped: Whether its arguments are not kept any more, because the history has a bound.
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
    follows: datetime | None = None
    arguments_dropped: bool = False

    @property
    def enqueued(self) -> datetime | None:
        """The time of its enqueueing, by the sender's clock, or None for a run outside a worker."""
        at = self._payload().get("message_timestamp")
        return datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int | float) else None

    @property
    def arguments(self) -> str:
        """The actor's arguments, as a person writes them; shown only on request, and empty if they are not kept."""
        found = self._payload()
        args = [json.dumps(one, ensure_ascii=False) for one in found.get("args", ())]
        named = [f"{key}={json.dumps(one, ensure_ascii=False)}" for key, one in found.get("kwargs", {}).items()]
        return ", ".join(args + named)

    @property
    def failed(self) -> datetime | None:
        """The time of its last failed or lost attempt, or of becoming a dead letter; None if it has not failed."""
        at = next((event.time for event in reversed(self.events) if event.state in FAILURES), None)
        return self.since if at is None and self.state == MessageState.DEAD else at

    @property
    def last_error(self) -> str:
        """The newest error, its type and text on one line; empty if no attempt ended with one."""
        for event in reversed(self.events):
            if event.error is not None:
                return event.error.line
        return ""

    @property
    def said_last(self) -> str:
        """The reason why it waits, its newest error, or the text with which it ended; empty if there is none.

        What was said before it came right, such as when it would be retried, does not count any more.
        """
        if self.waits_for:
            return self.waits_for
        if self.state in _SETTLED:
            return self.events[-1].text if self.events else ""
        return self.last_error or next((event.text for event in reversed(self.events) if event.text), "")

    @property
    def waits_for(self) -> str:
        """The reason why no worker could run it yet, or empty: its actor is unknown, or its arguments do not fit."""
        if self.state in ("queued", "delayed"):
            for event in reversed(self.events):
                if event.state is State.WAITING:
                    return event.text
                if event.state is not State.REQUESTED:
                    break
        return ""

    def _payload(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            found = json.loads(self.payload or b"{}")
            if isinstance(found, dict):
                return found
        return {}


def _much_of(size: int, limit: int | None) -> str:
    return format_size(size) + ("" if limit is None else f" (at most {format_size(limit)})")


def moment(ms: float) -> datetime:
    """The time that is this many milliseconds after the epoch."""
    return datetime.fromtimestamp(ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the matching messages, newest first, or by their last failure: `page_of_messages`.

    Attributes:
        messages: The messages. If few of very many match, they may be fewer than the limit, although there are more.
        cursor: The cursor for the next page, or None after the last page.
    """

    messages: tuple[StoredMessage, ...]
    cursor: int | None


@dataclass(frozen=True, slots=True)
class Count:
    """A number of matching messages. With a `cursor` it is a part of them: ask again with it, and add the numbers."""

    count: int
    cursor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySize:
    """The bytes that messages which have ended take on the server, about, and their bounds.

    Attributes:
        bytes: Those of messages that are completed, skipped or cancelled.
        limit: `WORKER_HISTORY_BYTES`, or None.
        dead_bytes: Those of dead letters.
        dead_limit: `WORKER_DEAD_BYTES`, or None.
    """

    bytes: int
    limit: int | None
    dead_bytes: int
    dead_limit: int | None

    @property
    def dead_letters_will_go(self) -> bool:
        """Whether dead letters near their bound: the oldest will go, or go already."""
        return self.dead_limit is not None and self.dead_bytes > NEARLY_FULL * self.dead_limit

    def __str__(self) -> str:
        ended, dead = _much_of(self.bytes, self.limit), _much_of(self.dead_bytes, self.dead_limit)
        return f"{ended} of ended messages, {dead} of dead letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorRates:
    """The rates of an actor over a time.

    Attributes:
        actor: The actor's name.
        ended: The number of ended attempts by the state that ended them.
        per_second: The number of ended attempts per second.
        error_share: The share of ended attempts, without those that were snoozed, that failed or were lost; 0 to 1.
        duration: The durations of attempts.
        wait: The waits of messages from their due time to the start of an attempt.
        blocked_ms: Milliseconds for which their event loops were blocked, in all.
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
    """The counts of a minute, or of an hour, over all actors; `seconds` is its length."""

    start: datetime
    seconds: float
    ended: Mapping[str, int]
    duration: Percentiles | None
    wait: Percentiles | None


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a queue, with its person and time."""

    by: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """A queue.

    Attributes:
        name: The queue's name.
        queued: The number of waiting messages.
        delayed: The number of delayed messages.
        running: The number of running messages.
        oldest_seconds: The wait of the oldest message that no worker has, or None.
        pause: The pause, or None if it is not paused.
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
        name: The process's name on the server.
        host: The host on which it runs.
        pid: The process's id.
        alive: Whether its lease is held; the messages of a dead one go to others within seconds.
        stopped: The time at which it ended by itself, or None; it is forgotten a quarter of an hour later.
        started: The time of its start.
        heartbeat: The time of its last heartbeat.
        queues: The queues that it reads.
        threads: The number of its threads, each for one attempt at a time.
        threads_busy: The number of attempts on its threads.
        concurrency: The most attempts that its shared loop runs at once; 0 if it runs none.
        on_loop: The number of attempts on the shared loop.
        loop_blocked_seconds: Seconds for which the shared loop has been blocked by now; 0 if it is not.
        attempts: The running attempts, at most 200: those that began first.
        ahead: The number of taken messages that were not begun.
        pool_busy: The number of busy threads in its pool for blocking calls.
        pool_size: The most threads of that pool.
        pool_waiting: The number of calls that wait for a thread.
        overruns: The number of cancelled coroutines that did not end in time.
        events_dropped: The number of STARTED and progress events that were dropped.
        ends_waiting: The number of ends that are not stored yet.
        errors: The present problems.
    """

    name: str
    host: str
    pid: int
    alive: bool
    stopped: datetime | None
    started: datetime | None
    heartbeat: datetime
    queues: tuple[str, ...]
    threads: int
    threads_busy: int
    concurrency: int
    on_loop: int
    loop_blocked_seconds: float
    attempts: tuple[HeldAttempt, ...]
    ahead: int
    pool_busy: int
    pool_size: int
    pool_waiting: int
    overruns: int
    events_dropped: int
    ends_waiting: int
    errors: tuple[str, ...]

    @property
    def state(self) -> str:
        """The process's state in a word: alive, stopped (it ended by itself) or dead."""
        return "alive" if self.alive else "dead" if self.stopped is None else "stopped"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit log: an action of a person, or refused log-ins.

    Attributes:
        time: The time of the action.
        by: The person or program.
        action: replay, purge, cancel, run_now, pause, resume, enqueue, sync or log_in_refused.
        target: The given filter, ids, queue, actor or repository; how a refused visitor tried to log in.
        count: The number of changed or enqueued messages, or of refused log-ins.
        ids: The ids of the first hundred of them.
    """

    time: datetime
    by: str
    action: str
    target: str
    count: int
    ids: tuple[str, ...] = field(default=())
