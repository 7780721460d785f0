"""The timeline of a message, made from its events: its attempts, each with its wait, progress, spans and end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.history.answers import StoredMessage
from worker.history.events import ErrorInfo, State, StatusEvent, WorkerId
from worker.history.states import MessageState


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineAttempt:
    """One run of a message.

    Attributes:
        number: 1 for the first attempt.
        state: running, or the state that ended it.
        started: The time of its begin, or None if that event was not kept.
        ended: The time of its end, or None while it runs.
        queued_ms: Milliseconds that the message had waited since it was due.
        duration_ms: Milliseconds that it took.
        blocked_ms: Milliseconds for which its event loop was blocked.
        blocked_at: The place of the longest block.
        longest_block_ms: Milliseconds of the longest block.
        longest_block_from_ms: Milliseconds from the attempt's begin to that of the longest block.
        worker: The process that ran it.
        text: The text of its end.
        error: The error's type, text and traceback.
        progress: The newest progress of the attempt or of a span inside it, or None.
        events: All events of the attempt and its spans, in the order of storing.
    """

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
    error: ErrorInfo | None
    progress: StatusEvent | None
    events: tuple[StatusEvent, ...]


def attempts_of(message: StoredMessage) -> tuple[TimelineAttempt, ...]:
    """The attempts of a message, oldest first; old attempts may have lost events that are no longer kept."""
    by_number: dict[int, list[StatusEvent]] = {}
    for event in message.events:
        if event.state not in (State.REQUESTED, State.WAITING):
            by_number.setdefault(event.attempt or 0, []).append(event)
    if message.state == MessageState.RUNNING and message.attempts not in by_number:
        # Its STARTED event is not stored yet.
        by_number[message.attempts] = []
    return tuple(_attempt(message, number, events) for number, events in sorted(by_number.items()))


def requests_of(message: StoredMessage) -> tuple[StatusEvent, ...]:
    """The actions that people asked for: replay, cancel, run now."""
    return tuple(event for event in message.events if event.state is State.REQUESTED)


def _attempt(message: StoredMessage, number: int, events: list[StatusEvent]) -> TimelineAttempt:
    own = [event for event in events if not _is_of_span(event)]
    start = _last(event for event in own if event.state is State.STARTED)
    end = _last(event for event in own if event.state.is_final)
    started = start.time if start is not None else None
    if started is None and end is not None and end.duration_ms is not None:
        started = end.time - timedelta(milliseconds=end.duration_ms)
    if started is None and end is None:
        started = message.since
    told = end or start
    return TimelineAttempt(
        number=number,
        state=end.state.value if end is not None else MessageState.RUNNING.value,
        started=started,
        ended=end.time if end is not None else None,
        queued_ms=next((one.queued_ms for one in (start, end) if one is not None and one.queued_ms is not None), None),
        duration_ms=end.duration_ms if end is not None else None,
        blocked_ms=end.blocked_ms if end is not None else None,
        blocked_at=end.blocked_at if end is not None else None,
        longest_block_ms=end.longest_block_ms if end is not None else None,
        longest_block_from_ms=end.longest_block_from_ms if end is not None else None,
        worker=told.worker if told is not None else None,
        text=told.text if told is not None else "",
        error=end.error if end is not None else None,
        progress=_last(event for event in events if event.state is State.PROGRESS),
        events=tuple(events),
    )


def _is_of_span(event: StatusEvent) -> bool:
    # A span's id has its number after the attempt's: `<message>:<attempt>/<span>`.
    return "/" in event.id.rpartition(":")[2]


def _last(events: Iterable[StatusEvent]) -> StatusEvent | None:
    found = None
    for found in events:  # noqa: B007 - the last one is used
        pass
    return found
