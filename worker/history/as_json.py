"""Messages, attempts and events as JSON: one description for the command line and for HTTP.

Arguments and tracebacks are null unless they are asked for. `worker.history.lists_as_json` has the lists of them.
The other answers of the history have the fields of their classes. `worker.ground.json_values.to_json` writes all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from worker.history.answers import StoredMessage, WorkerInfo
from worker.history.events import ErrorInfo, StatusEvent, SubjectValue, WorkerId
from worker.history.timeline import TimelineAttempt, attempts_of, requests_of


@dataclass(frozen=True, slots=True)
class Shown:
    """The parts that are shown on request only."""

    arguments: bool = False
    tracebacks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """An error that ended an attempt."""

    type: str
    text: str
    traceback: str | None

    @classmethod
    def of(cls, error: ErrorInfo, shown: Shown) -> Self:
        """Describes an error."""
        return cls(type=error.type, text=error.text, traceback=error.traceback if shown.tracebacks else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact about one attempt, or about a span inside it. `event` is `<prefix>.<state>`."""

    id: str
    event: str
    state: str
    time: datetime
    actor: str | None
    queue: str | None
    message_id: str | None
    attempt: int | None
    subject: Mapping[str, SubjectValue]
    text: str
    duration_ms: float | None
    queued_ms: float | None
    blocked_ms: float | None
    blocked_at: str | None
    longest_block_ms: float | None
    longest_block_from_ms: float | None
    parent: str | None
    by: str | None
    worker: WorkerId
    error: Error | None
    done: float | None
    total: float | None

    @classmethod
    def of(cls, event: StatusEvent, shown: Shown) -> Self:
        """Describes an event."""
        return cls(
            id=event.id,
            event=event.event,
            state=event.state.value,
            time=event.time,
            actor=event.actor,
            queue=event.queue,
            message_id=event.message_id,
            attempt=event.attempt,
            subject=event.subject,
            text=event.text,
            duration_ms=_exact(event.duration_ms),
            queued_ms=_exact(event.queued_ms),
            blocked_ms=_exact(event.blocked_ms),
            blocked_at=event.blocked_at,
            longest_block_ms=_exact(event.longest_block_ms),
            longest_block_from_ms=_exact(event.longest_block_from_ms),
            parent=event.parent,
            by=event.by,
            worker=event.worker,
            error=None if event.error is None else Error.of(event.error, shown),
            done=event.done,
            total=event.total,
        )


def _exact(ms: float | None) -> float | None:
    """The milliseconds, rounded to a microsecond, as they are stored."""
    return None if ms is None else round(ms, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a message. Its state is running, or the state that ended it; `progress` is the newest."""

    number: int
    state: str
    started: datetime | None
    ended: datetime | None
    queued_ms: float | None
    duration_ms: float | None
    blocked_ms: float | None
    blocked_at: str | None
    longest_block_ms: float | None
    longest_block_from_ms: float | None
    worker: WorkerId | None
    text: str
    error: Error | None
    progress: Event | None
    events: list[Event]

    @classmethod
    def of(cls, attempt: TimelineAttempt, shown: Shown) -> Self:
        """Describes an attempt."""
        return cls(
            number=attempt.number,
            state=attempt.state,
            started=attempt.started,
            ended=attempt.ended,
            queued_ms=attempt.queued_ms,
            duration_ms=attempt.duration_ms,
            blocked_ms=attempt.blocked_ms,
            blocked_at=attempt.blocked_at,
            longest_block_ms=_exact(attempt.longest_block_ms),
            longest_block_from_ms=_exact(attempt.longest_block_from_ms),
            worker=attempt.worker,
            text=attempt.text,
            error=None if attempt.error is None else Error.of(attempt.error, shown),
            progress=None if attempt.progress is None else Event.of(attempt.progress, shown),
            events=events_of(attempt.events, shown),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message, or a run outside a worker.

    `waits_for` is the reason why no worker could run it yet, or empty. `arguments_dropped`: its arguments are not kept
    any more.
    `number` counts all messages in the order of enqueueing. `since` is the time at which it entered its state; for a
    delayed message, the time when it is due.
    """

    id: str
    number: int
    state: str
    since: datetime
    enqueued: datetime | None
    attempts: int
    priority: str
    actor: str
    queue: str
    subject: Mapping[str, str]
    last_error: str
    waits_for: str
    arguments: str | None
    arguments_dropped: bool

    @classmethod
    def of(cls, message: StoredMessage, shown: Shown) -> Self:
        """Describes a message."""
        return cls(**_fields_of(message, shown))


def _fields_of(message: StoredMessage, shown: Shown) -> dict[str, Any]:
    return {
        "id": message.id,
        "number": message.number,
        "state": message.state,
        "since": message.since,
        "enqueued": message.enqueued,
        "attempts": message.attempts,
        "priority": message.priority,
        "actor": message.actor,
        "queue": message.queue,
        "subject": message.subject,
        "last_error": message.last_error,
        "waits_for": message.waits_for,
        "arguments": message.arguments if shown.arguments else None,
        "arguments_dropped": message.arguments_dropped,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDetail(Message):
    """A message with every attempt (`timeline`, oldest first), and the actions that people asked for (`requests`).

    `events_left_out` counts the older events that were dropped, because there were too many. `follows` is the time when
    the message is due again after its end, because its own attempt has enqueued it.
    """

    timeline: list[Attempt]
    requests: list[Event]
    events_left_out: int
    follows: datetime | None

    @classmethod
    def of(cls, message: StoredMessage, shown: Shown) -> Self:
        """Describes a message and its attempts."""
        return cls(
            **_fields_of(message, shown),
            timeline=[Attempt.of(one, shown) for one in attempts_of(message)],
            requests=events_of(requests_of(message), shown),
            events_left_out=message.events_left_out,
            follows=message.follows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedMessage(Message):
    """A message with all of its events, oldest first."""

    events: list[Event]
    events_left_out: int

    @classmethod
    def of(cls, message: StoredMessage, shown: Shown) -> Self:
        """Describes a message and its events."""
        return cls(
            **_fields_of(message, shown),
            events=events_of(message.events, shown),
            events_left_out=message.events_left_out,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMessage(Message):
    """A running message, with its attempt; `heartbeat` is the last one of its worker."""

    attempt: int
    started: datetime | None
    worker: WorkerId | None
    heartbeat: datetime | None
    progress: Event | None

    @classmethod
    def at(cls, message: StoredMessage, workers: Iterable[WorkerInfo], shown: Shown) -> Self:
        """Describes a message that one of these workers runs."""
        attempts = attempts_of(message)
        last = attempts[-1] if attempts else None
        worker = last.worker if last is not None else None
        return cls(
            **_fields_of(message, shown),
            attempt=last.number if last is not None else message.attempts,
            started=last.started if last is not None else None,
            worker=worker,
            heartbeat=next((one.heartbeat for one in workers if worker == WorkerId(one.host, one.pid)), None),
            progress=None if last is None or last.progress is None else Event.of(last.progress, shown),
        )


def messages_of(messages: Iterable[StoredMessage], shown: Shown) -> list[Message]:
    """Describes messages."""
    return [Message.of(message, shown) for message in messages]


def events_of(events: Iterable[StatusEvent], shown: Shown) -> list[Event]:
    """Describes events."""
    return [Event.of(event, shown) for event in events]
