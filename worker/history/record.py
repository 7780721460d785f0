"""Reads a record: a line of fields, the message, and a line for each event; `lua/record.lua` writes it.

After the twelve fields there may be more, each `name=value`; fields that this version does not know are skipped.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

from worker.history.answers import StoredMessage, moment
from worker.history.events import StatusEvent
from worker.history.lines import from_line

_FIELDS = 12


def read_record(message_id: str, record: bytes | None) -> StoredMessage | None:
    """Reads a record; returns None if it is missing or cannot be read."""
    try:
        head, payload, lines = (record or b"").split(b"\n", 2)
        fields = head.decode().split("\t")
        number, state, fence, attempts, _, _, since, cut, priority, queue, actor, subjects = fields[:_FIELDS]
        return StoredMessage(
            id=message_id,
            number=int(number),
            state=state,
            since=moment(float(since)),
            attempts=int(attempts),
            fence=int(fence),
            priority=priority,
            actor=actor,
            queue=queue,
            subject=dict(_pair(one) for one in subjects.split("\x1f") if one),
            payload=payload,
            events=tuple(_read_lines(lines, message_id, actor, queue)),
            events_left_out=int(cut),
            follows=_due_again(fields[_FIELDS:]),
            arguments_dropped=payload != b"" and "bare=1" in fields[_FIELDS:],
        )
    except (ValueError, IndexError):
        return None


def _due_again(more: list[str]) -> datetime | None:
    """The time when the message is due that its own attempt has enqueued, or None."""
    for field in more:
        name, _, value = field.partition("=")
        if name == "next":
            return moment(float(value.split("\x1f")[1]))
    return None


def _pair(subject: str) -> tuple[str, str]:
    name, _, value = subject.partition("=")
    return name, value


def _read_lines(lines: bytes, message_id: str, actor: str, queue: str) -> list[StatusEvent]:
    events = []
    for line in lines.splitlines():
        # An event of a later version that this one cannot read must not hide the others.
        with contextlib.suppress(ValueError):
            events.append(from_line(line, message_id, actor, queue))
    return events
