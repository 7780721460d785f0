"""What is answered: typed shapes of what the history knows. Arguments and tracebacks are hidden unless they are shown.

An event has the same shape wherever it appears, in the live tail too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from worker.history import answers, timeline
from worker.history.events import ErrorInfo, State, StatusEvent, WorkerId
from worker.history.histogram import Percentiles
from worker.history.states import ATTEMPT_STATES
from worker.operations.health import HealthState


def readable(text: object) -> object:
    """The text with what is no character escaped: half a character could not be sent."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(readable)]


class Shape(BaseModel):
    """What all have in common."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Process(Shape):
    """A process."""

    host: Text
    pid: int


class Error(Shape):
    """An error that ended an attempt."""

    type: Text
    text: Text
    traceback: Text | None = Field(description="Null unless WORKER_WEB_SHOW_ARGUMENTS is set.")

    @classmethod
    def of(cls, error: ErrorInfo, *, whole: bool) -> Self:
        """The error, with its traceback if it is shown whole."""
        return cls(type=error.type, text=error.text, traceback=error.traceback if whole else None)


class Event(Shape):
    """One fact about one attempt, or about a span inside it."""

    id: Text
    event: Text = Field(description="`<prefix>.<state>`.")
    state: State
    time: datetime
    actor: Text | None
    queue: Text | None
    message_id: Text | None
    attempt: int | None
    subject: dict[Text, Text | int | float | bool | None]
    text: Text
    duration_ms: float | None
    queued_ms: float | None
    blocked_ms: float | None
    blocked_at: Text | None
    parent: Text | None
    by: Text | None
    worker: Process
    error: Error | None
    done: float | None
    total: float | None

    @classmethod
    def of(cls, event: StatusEvent, *, whole: bool) -> Self:
        """The event, with an error's traceback if it is shown whole."""
        return cls(
            id=event.id,
            event=event.event,
            state=event.state,
            time=event.time,
            actor=event.actor,
            queue=event.queue,
            message_id=event.message_id,
            attempt=event.attempt,
            subject=dict(event.subject),
            text=event.text,
            duration_ms=event.duration_ms,
            queued_ms=event.queued_ms,
            blocked_ms=event.blocked_ms,
            blocked_at=event.blocked_at,
            parent=event.parent,
            by=event.by,
            worker=_process(event.worker),
            error=None if event.error is None else Error.of(event.error, whole=whole),
            done=event.done,
            total=event.total,
        )


class Message(Shape):
    """A message, or a run outside a worker."""

    id: Text
    number: int = Field(description="Counts all messages, in the order in which they were enqueued.")
    state: Text
    since: datetime = Field(description="Since when it is in that state; when it is due, if it is delayed.")
    enqueued: datetime | None
    attempts: int
    priority: Text
    actor: Text
    queue: Text
    subject: dict[Text, Text]
    last_error: Text
    arguments: Text | None = Field(description="Null unless WORKER_WEB_SHOW_ARGUMENTS is set.")

    @classmethod
    def of(cls, message: answers.StoredMessage, *, whole: bool) -> Self:
        """The message, with its arguments if it is shown whole."""
        return cls(**_fields_of(message, whole=whole))


class Attempt(Shape):
    """One run of a message."""

    number: int
    state: Annotated[Text, Field(json_schema_extra={"enum": list(ATTEMPT_STATES)})]
    started: datetime | None
    ended: datetime | None
    queued_ms: float | None = Field(description="How long the message had waited since it was due.")
    duration_ms: float | None
    blocked_ms: float | None
    blocked_at: Text | None
    worker: Process | None
    text: Text
    error: Error | None
    progress: Event | None
    events: list[Event]

    @classmethod
    def of(cls, attempt: timeline.TimelineAttempt, *, whole: bool) -> Self:
        """The attempt, with tracebacks if it is shown whole."""
        return cls(
            number=attempt.number,
            state=attempt.state,
            started=attempt.started,
            ended=attempt.ended,
            queued_ms=attempt.queued_ms,
            duration_ms=attempt.duration_ms,
            blocked_ms=attempt.blocked_ms,
            blocked_at=attempt.blocked_at,
            worker=None if attempt.worker is None else _process(attempt.worker),
            text=attempt.text,
            error=None if attempt.error is None else Error.of(attempt.error, whole=whole),
            progress=None if attempt.progress is None else Event.of(attempt.progress, whole=whole),
            events=[Event.of(event, whole=whole) for event in attempt.events],
        )


class MessageDetail(Message):
    """A message with every attempt."""

    timeline: list[Attempt] = Field(description="Its attempts, oldest first.")
    requests: list[Event] = Field(description="What people asked for: replay, cancel, run now.")
    events_left_out: int = Field(description="How many older events were dropped because there were too many.")

    @classmethod
    def of(cls, message: answers.StoredMessage, *, whole: bool) -> Self:
        """The message and its attempts, with arguments and tracebacks if it is shown whole."""
        return cls(
            **_fields_of(message, whole=whole),
            timeline=[Attempt.of(one, whole=whole) for one in timeline.attempts_of(message)],
            requests=[Event.of(one, whole=whole) for one in timeline.requests_of(message)],
            events_left_out=message.events_left_out,
        )


class MessagePage(Shape):
    """Some messages, and where the next ones are."""

    messages: list[Message]
    cursor: int | None = Field(description="Ask for the next page with it; null: there is none.")


class DelayedPage(Shape):
    """Some delayed messages, the next to be due first."""

    messages: list[Message]
    cursor: str | None = Field(description="Ask for the next page with it; null: there is none.")


class Running(Message):
    """A message that runs: where, since when, and how far it is."""

    attempt: int
    started: datetime | None
    worker: Process | None
    heartbeat: datetime | None = Field(description="When its worker was last heard of.")
    progress: Event | None

    @classmethod
    def at(cls, message: answers.StoredMessage, heartbeats: Mapping[tuple[str, int], datetime], *, whole: bool) -> Self:
        """The message as it runs, given when each process was last heard of."""
        attempts = timeline.attempts_of(message)
        last = attempts[-1] if attempts else None
        worker = last.worker if last is not None else None
        return cls(
            **_fields_of(message, whole=whole),
            attempt=last.number if last is not None else message.attempts,
            started=last.started if last is not None else None,
            worker=None if worker is None else _process(worker),
            heartbeat=None if worker is None else heartbeats.get((worker.host, worker.pid)),
            progress=None if last is None or last.progress is None else Event.of(last.progress, whole=whole),
        )


class RunningPage(Shape):
    """Some messages that run, those enqueued last first."""

    messages: list[Running]
    cursor: int | None = Field(description="Ask for the next page with it; null: there is none.")


class Count(Shape):
    """How many messages match."""

    count: int
    cursor: int | None = Field(description="Not null: there were too many to look at; ask on with it, and add.")


class Events(Shape):
    """Some events, oldest first."""

    events: list[Event]
    position: str = Field(description="Where the live tail goes on: follow after it, and nothing is missed.")


class Times(Shape):
    """Of how many times, and below which a half, 95 and 99 of 100 of them were; ±5 %."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Rates(Shape):
    """How an actor fared over a time that ends now."""

    actor: Text
    ended: dict[str, int] = Field(description="How many attempts ended how.")
    per_second: float
    error_share: float = Field(description="Of those that ended, the share that failed or were lost.")
    duration: Times | None
    wait: Times | None = Field(description="From the time a message was due to the start of an attempt.")
    blocked_ms: int = Field(description="How long event loops were blocked, in all.")

    @classmethod
    def of(cls, rates: answers.ActorRates) -> Self:
        """The rates."""
        return cls(
            actor=rates.actor,
            ended=dict(rates.ended),
            per_second=rates.per_second,
            error_share=rates.error_share,
            duration=_times(rates.duration),
            wait=_times(rates.wait),
            blocked_ms=rates.blocked_ms,
        )


class Window(Shape):
    """What happened in a minute, or an hour."""

    start: datetime
    seconds: float
    ended: dict[str, int]
    duration: Times | None
    wait: Times | None

    @classmethod
    def of(cls, window: answers.Window) -> Self:
        """The window."""
        return cls(
            start=window.start,
            seconds=window.length.total_seconds(),
            ended=dict(window.ended),
            duration=_times(window.duration),
            wait=_times(window.wait),
        )


class Pause(Shape):
    """Who paused a queue, and when."""

    by: Text
    since: datetime


class Queue(Shape):
    """A queue."""

    name: Text
    queued: int
    delayed: int
    running: int
    oldest_seconds: float | None = Field(description="For how long the oldest message waits; null: none does.")
    pause: Pause | None

    @classmethod
    def of(cls, queue: answers.QueueInfo) -> Self:
        """The queue."""
        return cls(
            name=queue.name,
            queued=queue.queued,
            delayed=queue.delayed,
            running=queue.running,
            oldest_seconds=None if queue.oldest is None else queue.oldest.total_seconds(),
            pause=None if queue.pause is None else Pause(by=queue.pause.by, since=queue.pause.since),
        )


class Held(Shape):
    """An attempt that a worker process runs."""

    message_id: Text
    actor: Text
    number: int
    started: datetime


class Worker(Shape):
    """A worker process, as of its last heartbeat."""

    name: Text
    host: Text
    pid: int
    alive: bool
    started: datetime | None
    heartbeat: datetime
    queues: list[Text]
    threads: int
    attempts: list[Held]
    ahead: int = Field(description="Messages it has taken that no thread has begun.")
    pool_busy: int
    pool_size: int
    pool_waiting: int
    overruns: int
    events_dropped: int
    ends_waiting: int
    errors: list[Text]


class AuditEntry(Shape):
    """An action that somebody took."""

    time: datetime
    by: Text
    action: Text
    target: Text
    count: int
    ids: list[Text]


class Health(Shape):
    """Whether messages are worked on."""

    state: HealthState
    reasons: list[Text] = Field(description="What is wrong, a line each.")
    workers: int = Field(description="How many worker processes are alive.")


class Session(Shape):
    """Who asks."""

    name: Text
    may_act: bool
    shows_arguments: bool
    csrf_token: str = Field(description="What a page sends back with each action, in the header X-CSRF-Token.")


def shown_messages(messages: Iterable[answers.StoredMessage], *, whole: bool) -> list[Message]:
    """The messages, with their arguments if they are shown whole."""
    return [Message.of(message, whole=whole) for message in messages]


def _fields_of(message: answers.StoredMessage, *, whole: bool) -> dict[str, object]:
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
        "subject": dict(message.subject),
        "last_error": message.last_error,
        "arguments": message.arguments if whole else None,
    }


def _process(worker: WorkerId) -> Process:
    return Process(host=worker.host, pid=worker.pid)


def _times(found: Percentiles | None) -> Times | None:
    return None if found is None else Times.model_validate(found)
