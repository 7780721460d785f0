"""The timeline of a message as bars on one axis of time, with begins and widths in percent.

It is only geometry, without pages or colours. Long waits between attempts are cut, and marked as cut; very short bars
are made wide enough to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from worker.history.answers import StoredMessage
from worker.history.events import State, StatusEvent
from worker.history.states import MessageState
from worker.history.timeline import TimelineAttempt, attempts_of

_LONGEST_GAP = 0.15
"""The longest gap that is drawn, as a share of the busy time."""

_NARROWEST = 0.006
_SHORTEST_DELAY_MS = 1_000
"""Milliseconds between enqueueing and the due time below which a delay was not asked for, and is not drawn."""

_TICKS_APART = 13.0
_WHOLE = 100.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time.

    Attributes:
        x: The begin, in percent.
        width: The width, in percent.
        ms: The real duration in milliseconds.
        cut: Whether it is drawn shorter than it was.
    """

    x: float
    width: float
    ms: float
    cut: bool = False


@dataclass(frozen=True, slots=True)
class SpanBar:
    """A span inside an attempt: its name, its state, and its bar."""

    name: str
    state: str
    text: str
    depth: int
    bar: Bar


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptBars:
    """An attempt's bars.

    Attributes:
        attempt: The attempt.
        wait: The bar from its due time to its start.
        run: The bar from its start to its end, or until now.
        blocked: The bar of the longest block of its loop, or None if its time is not known.
        gap: The bar from its end until the next due time.
        spans: The bars of the spans inside it.
        marks: The places of progress events, each with its text.
    """

    attempt: TimelineAttempt
    wait: Bar | None
    run: Bar
    blocked: Bar | None
    gap: Bar | None
    spans: tuple[SpanBar, ...]
    marks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of the axis: its place, and the time since the first moment."""

    x: float
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A timeline, drawn.

    Attributes:
        rows: One for each attempt.
        before: The bar from the first moment to the first due time, or None if there was no delay.
        pending: The bar of the present wait, until it is taken or until it is due.
        ticks: The labels of the axis.
        cut: Whether a bar is drawn shorter than it was.
    """

    rows: tuple[AttemptBars, ...]
    before: Bar | None
    pending: Bar | None
    ticks: tuple[Tick, ...]
    cut: bool


@dataclass(frozen=True, slots=True)
class _Stretch:
    start: datetime
    end: datetime


class _Axis:
    """Maps times to percents; the quiet times between its stretches get little room."""

    def __init__(self, busy: Sequence[_Stretch], moments: Sequence[datetime]) -> None:
        self._times = sorted({*moments, *(one.start for one in busy), *(one.end for one in busy)})
        lengths = [(later - earlier).total_seconds() for earlier, later in pairwise(self._times)]
        at_work = [any(one.start <= time and one.end > time for one in busy) for time in self._times[:-1]]
        active = sum(length for length, works in zip(lengths, at_work, strict=True) if works) or sum(lengths) or 1.0
        longest = _LONGEST_GAP * active
        self._cut = [not works and length > longest for length, works in zip(lengths, at_work, strict=True)]
        weights = [longest if cut else length for length, cut in zip(lengths, self._cut, strict=True)]
        least = _NARROWEST * (sum(weights) or 1.0)
        weights = [max(weight, least) for weight in weights]
        scale = _WHOLE / (sum(weights) or 1.0)
        self._x = [0.0]
        for weight in weights:
            self._x.append(self._x[-1] + weight * scale)

    @property
    def start(self) -> datetime:
        return self._times[0]

    @property
    def cut(self) -> bool:
        return any(self._cut)

    def x(self, moment: datetime) -> float:
        """The place of a moment, in percent."""
        if moment <= self._times[0]:
            return 0.0
        for index, (earlier, later) in enumerate(pairwise(self._times)):
            if moment <= later:
                part = (moment - earlier) / (later - earlier)
                return self._x[index] + part * (self._x[index + 1] - self._x[index])
        return self._x[-1]

    def bar(self, start: datetime, end: datetime) -> Bar:
        """The bar from one moment to another."""
        left, right = self.x(start), self.x(end)
        cut = any(
            cut and earlier >= start and later <= end
            for (earlier, later), cut in zip(pairwise(self._times), self._cut, strict=True)
        )
        return Bar(round(left, 3), round(max(right - left, 0.0), 3), (end - start) / timedelta(milliseconds=1), cut)

    def ticks(self) -> Iterator[Tick]:
        """Labels at the begins and ends of stretches, as far as there is room."""
        last = -_TICKS_APART
        for time, x in zip(self._times, self._x, strict=True):
            if x - last >= _TICKS_APART:
                last = x
                yield Tick(round(x, 3), (time - self.start) / timedelta(milliseconds=1))


def draw(message: StoredMessage, now: datetime) -> Drawing:
    """The timeline of a message at the moment `now`."""
    attempts = [one for one in attempts_of(message) if one.started is not None]
    busy = [_Stretch(_due(one), max(_end(one, now), _due(one))) for one in attempts]
    waits = _pending(message, now)
    if message.state == MessageState.QUEUED and waits is not None:
        busy.append(waits)
    first = [message.enqueued] if message.enqueued is not None and not message.events_left_out else []
    inner = [one.started for one in attempts if one.started is not None]
    moments = [*first, *inner, *([waits.start, waits.end] if waits is not None else [])]
    if not (busy or moments):
        return Drawing(rows=(), before=None, pending=None, ticks=(), cut=False)
    axis = _Axis(busy, moments)
    rows = [
        _row(axis, one, busy[index + 1].start if index + 1 < len(attempts) else None, now)
        for index, one in enumerate(attempts)
    ]
    due = busy[0].start if busy else None
    before = axis.bar(first[0], due) if first and due is not None and due > first[0] else None
    return Drawing(
        rows=tuple(rows),
        before=before if before is not None and before.ms >= _SHORTEST_DELAY_MS else None,
        pending=axis.bar(waits.start, waits.end) if waits is not None else None,
        ticks=tuple(axis.ticks()),
        cut=axis.cut,
    )


def _pending(message: StoredMessage, now: datetime) -> _Stretch | None:
    """The present wait of a queued or delayed message, or None."""
    if message.state == MessageState.QUEUED:
        return _Stretch(min(message.since, now), now)
    if message.state != MessageState.DELAYED:
        return None
    ended = [event.time for event in message.events if event.state.is_final]
    start = ended[-1] if ended else message.enqueued or now
    return _Stretch(min(start, message.since), message.since)


def _due(attempt: TimelineAttempt) -> datetime:
    assert attempt.started is not None  # noqa: S101 - the others are left out
    return attempt.started - timedelta(milliseconds=attempt.queued_ms or 0)


def _end(attempt: TimelineAttempt, now: datetime) -> datetime:
    assert attempt.started is not None  # noqa: S101 - the others are left out
    return max(attempt.ended or now, attempt.started)


def _row(axis: _Axis, attempt: TimelineAttempt, next_due: datetime | None, now: datetime) -> AttemptBars:
    assert attempt.started is not None  # noqa: S101 - the others are left out
    end = _end(attempt, now)
    run = axis.bar(attempt.started, end)
    return AttemptBars(
        attempt=attempt,
        wait=axis.bar(_due(attempt), attempt.started) if attempt.queued_ms else None,
        run=run,
        blocked=_blocked(axis, attempt, end),
        gap=axis.bar(end, next_due) if next_due is not None and next_due > end else None,
        spans=tuple(_spans(axis, attempt, end)),
        marks=tuple(
            (round(axis.x(event.time), 3), _progress(event))
            for event in attempt.events
            if event.state is State.PROGRESS
        ),
    )


def _blocked(axis: _Axis, attempt: TimelineAttempt, end: datetime) -> Bar | None:
    took, after = attempt.longest_block_ms, attempt.longest_block_from_ms
    if took is None or after is None or attempt.started is None:
        return None
    start = min(attempt.started + timedelta(milliseconds=after), end)
    return replace(axis.bar(start, min(start + timedelta(milliseconds=took), end)), ms=took)


def _progress(event: StatusEvent) -> str:
    said = f"{event.done:g} of {event.total:g}" if event.done is not None and event.total else f"{event.done or 0:g}"
    return f"{said} {event.text}".rstrip()


def _spans(axis: _Axis, attempt: TimelineAttempt, until: datetime) -> Iterator[SpanBar]:
    """The spans of an attempt: each has a STARTED event, and an event at its end with the first as its parent."""
    starts = [one for one in attempt.events if one.state is State.STARTED and one.parent is not None]
    ends = {one.parent: one for one in attempt.events if one.state.is_final and one.parent is not None}
    depths: dict[str | None, int] = {}
    for start in starts:
        depths[start.id] = depths.get(start.parent, 0) + 1
        end = ends.get(start.id)
        yield SpanBar(
            name=start.event.rpartition(".")[0],
            state=_state_of_span(end, attempt),
            text=(end.error.line if end.error is not None else end.text) if end is not None else start.text,
            depth=depths[start.id],
            bar=axis.bar(start.time, max(end.time if end is not None else until, start.time)),
        )


def _state_of_span(end: StatusEvent | None, attempt: TimelineAttempt) -> str:
    if end is not None:
        return end.state
    return MessageState.RUNNING if attempt.ended is None else State.LOST
