"""Commits: the facts of an attempt that must be stored (its start, its events, its end), and their form for the script.

It is one object from the runner to the server: later facts of the same attempt join it, until it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from worker.attempts.spans import message_state
from worker.broker.envelope import NOT_DELAYED, Parcel
from worker.broker.taken import Ending, Group, TakenMessage
from worker.history.events import StatusEvent, UsualEvent
from worker.history.histogram import bucket
from worker.history.lines import subject_names, to_line, usual_line
from worker.history.waiting import Item

_SEPARATOR = "\x1f"
"""Separates fields. No field holds it: JSON escapes it, and names cannot have it."""


_STARTED, _STARTED_ONCE = "1", "once"
_GOOD = {"completed", "skipped"}


@dataclass(slots=True)
class Commit(Item):
    """Facts of an attempt that must be stored.

    Attributes:
        message: The attempt's message.
        started: Whether the attempt has begun.
        events: The events in the order of recording, with the one that ends the attempt.
        ending: The end of the attempt, or None while it runs.
    """

    message: TakenMessage
    started: bool = False
    events: list[StatusEvent | UsualEvent] = field(default_factory=list)
    ending: Ending | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The message's id and the fence; commits with the same key are joined."""
        return self.message.message_id, self.message.fence

    @property
    def is_end(self) -> bool:
        """Whether the commit ends the attempt."""
        return self.ending is not None

    @property
    def may_be_dropped(self) -> bool:
        """Whether it may be dropped in an outage, because it holds neither the begin nor the end of the attempt."""
        return self.ending is None and not self.started

    @property
    def may_lose_events(self) -> bool:
        """Whether its end may be stored without its events, if the server has no memory left."""
        ending = self.ending
        return ending is not None and outcome_of(ending) in _GOOD and not (ending.follow_ups or ending.group)

    def absorb(self, later: Commit) -> None:
        """Adds later facts of the same attempt."""
        self.started = self.started or later.started
        self.events += later.events
        # Facts after the end, from a thread that was left behind, do not undo it.
        self.ending = later.ending or self.ending

    def texts(self) -> tuple[str, str]:
        """The commit in the form that the script reads: its fields, and its lines of events."""
        message = self.message
        lines = ""
        subjects: list[str] = []
        for event in self.events:
            lines += _line_of(event)
            if event.subject:
                subjects += subject_names(event.subject)
        return write_commit(
            (message.message_id, message.fence, message.attempt),
            started=(_STARTED_ONCE if message.at_most_once else _STARTED) if self.started else "",
            lines=lines,
            subjects=subjects,
            end=None if self.ending is None else _end_of(message, self.ending),
        )


class End(NamedTuple):
    """The end of an attempt, with the fields in the order that the script reads.

    Attributes:
        stream: The stream of the message's entry.
        entry: The entry's id.
        outcome: The fate of the message, as `outcome_of` names it.
        kind: The state that ended the attempt, or `lost`.
        error: The type of its error, or empty.
        took: The bucket of its duration, or empty.
        waited: The bucket of the message's wait, or empty.
        blocked: Milliseconds for which loops were blocked, or empty.
        payload: The message for the next attempt, or empty.
        later: Milliseconds until the next attempt; negative for at once.
        follow_ups: Messages that are enqueued together with the end.
        group: The group in which the message counts if it ended well, or None.
    """

    stream: str
    entry: str
    outcome: str
    kind: str
    error: str
    took: str
    waited: str
    blocked: str
    payload: str
    later: int
    follow_ups: Sequence[Parcel]
    group: Group | None = None


_NO_END = [""] * (len(End._fields) - 2)


def write_commit(
    attempt: tuple[str, int, int], *, started: str, lines: str, subjects: Sequence[str], end: End | None
) -> tuple[str, str]:
    """The facts of an attempt (its message's id, fence and number) in the form that the script reads.

    `started` is `1` if it has begun, `once` if it may not begin again, or empty.
    """
    message_id, fence, number = attempt
    fields = [message_id, str(fence), str(number), started]
    if end is None:
        return _SEPARATOR.join([*fields, *_NO_END, str(len(subjects)), *subjects]), lines
    fields += [end.stream, end.entry, end.outcome, end.kind, end.error, end.took, end.waited, end.blocked, end.payload]
    fields += [str(end.later), str(len(subjects)), *subjects, *_parcels(end.follow_ups)]
    if end.group is not None:
        fields += [end.group.name, str(end.group.ttl_ms), *_parcels(end.group.callbacks)]
    return _SEPARATOR.join(fields), lines


def _parcels(parcels: Sequence[Parcel]) -> list[str]:
    fields = [str(len(parcels))]
    for one in parcels:
        fields += [one.message_id, one.payload.decode(), one.queue, one.priority, one.actor, one.subjects]
        fields.append(str(one.delay_ms))
    return fields


def outcome_of(ending: Ending) -> str:
    """The fate of the message: `dead`, `back`, `retry`, or the state that ended its attempt."""
    if ending.rejected:
        return "dead"
    if ending.given_back:
        return "back"
    if ending.retry is not None:
        return "retry"
    return message_state(_event_of(ending).state)


def _line_of(event: StatusEvent | UsualEvent) -> str:
    return usual_line(event) if type(event) is UsualEvent else to_line(cast("StatusEvent", event))


def _event_of(ending: Ending) -> StatusEvent | UsualEvent:
    if ending.event is None:
        raise ValueError("an ending is stored with the event that ends the attempt")
    return ending.event


def _end_of(message: TakenMessage, ending: Ending) -> End:
    event, outcome = _event_of(ending), outcome_of(ending)
    error = blocked = payload = ""
    if not isinstance(event, UsualEvent):
        error = event.error.type if event.error is not None else ""
        blocked = str(round(event.blocked_ms)) if event.blocked_ms is not None else ""
    later = NOT_DELAYED
    if outcome == "retry" and ending.retry is not None:
        payload, later = ending.retry.payload.decode(), ending.retry.delay_ms
    # By position: most messages have one, and names take twice as long.
    return End(
        message.stream,
        message.entry,
        outcome,
        event.state._value_,  # `value` is a function of Python's
        error,
        bucket(event.duration_ms),
        bucket(event.queued_ms),
        blocked,
        payload,
        later,
        ending.follow_ups,
        ending.group,
    )
