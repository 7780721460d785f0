"""How an event is kept: one line of JSON with short names, in the record of its message.

What the record knows already (message, actor, queue) and what can be told from the rest (ids) is left out.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from worker.history.events import ErrorInfo, State, StatusEvent, Subject, WorkerId

_BUCKETS_START_MS = 0.1
_BUCKETS_GROW = math.log(1.1)

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def record_id(event: StatusEvent) -> str:
    """The id of the record an event belongs to: its message's, or that of the run outside a worker."""
    return event.message_id or event.id.rpartition(":")[0] or event.id


def to_line(event: StatusEvent) -> str:
    """The event as a line, newline included."""
    # "s" comes first and "r" begins with the type: the scripts look for them.
    found: dict[str, Any] = {"s": event.state.value, "t": round(event.time.timestamp() * 1000)}
    prefix = event.event.removesuffix("." + event.state.value)
    if prefix != event.actor:
        found["e"] = prefix
    attempt = event.attempt
    if attempt is not None:
        found["n"] = attempt
    own = event.id.removeprefix(record_id(event) + ":")
    if own != _usual_id(attempt, event.state):
        found["i"] = own
    if event.parent is not None:
        parent = event.parent.removeprefix(record_id(event) + ":")
        if parent != _usual_parent(own, attempt, event.state):
            found["p"] = parent
    found["w"] = f"{event.worker.host}:{event.worker.pid}"
    for name, value in (
        ("x", event.text or None),
        ("d", event.duration_ms),
        ("q", event.queued_ms),
        ("b", event.blocked_ms),
        ("ba", event.blocked_at),
        ("g", event.done),
        ("o", event.total),
    ):
        if value is not None:
            found[name] = round(value, 3) if isinstance(value, float) else value
    if event.subject:
        found["j"] = dict(event.subject)
    if event.error is not None:
        found["r"] = [event.error.type, event.error.text, event.error.traceback]
    return _storable(_encode(found) + "\n")


def from_line(line: str | bytes, message_id: str, actor: str, queue: str) -> StatusEvent:
    """Reads what `to_line` wrote; names of a later version are passed over.

    Raises:
        ValueError: It is no such line.
    """
    try:
        found = json.loads(line)
        state = State(found["s"])
        attempt = found.get("n")
        own = found.get("i", _usual_id(attempt, state))
        parent = found.get("p", _usual_parent(own, attempt, state))
        host, pid, *_ = found["w"].split(":")
        return StatusEvent(
            event=f"{found.get('e', actor)}.{state.value}",
            state=state,
            id=own if own == message_id else f"{message_id}:{own}",
            time=datetime.fromtimestamp(found["t"] / 1000, UTC),
            actor=actor or None,
            queue=queue or None,
            message_id=message_id if queue else None,
            attempt=attempt,
            subject=found.get("j", {}),
            text=found.get("x", ""),
            duration_ms=found.get("d"),
            queued_ms=found.get("q"),
            blocked_ms=found.get("b"),
            blocked_at=found.get("ba"),
            parent=parent and f"{message_id}:{parent}",
            worker=WorkerId(host, int(pid)),
            error=ErrorInfo(*found["r"]) if "r" in found else None,
            done=found.get("g"),
            total=found.get("o"),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not an event: {line!r:.200}") from error


def _storable(text: str) -> str:
    """The text with what is no character escaped: the halves of one, which Python makes of bytes that are no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _usual_id(attempt: int | None, state: State) -> str:
    return f"{attempt or 0}" if state is State.STARTED else f"{attempt or 0}.end"


def _usual_parent(own: str, attempt: int | None, state: State) -> str | None:
    if state is State.STARTED:
        return f"{attempt or 0}" if "/" in own else None
    return own.rpartition(".")[0]


def subject_names(subject: Subject) -> list[str]:
    """Each part of a subject as `name=value`, by which it is found."""
    return [_storable(f"{name}={value}").translate(_SEPARATORS) for name, value in subject.items()]


_SEPARATORS = str.maketrans("\t\n\x1f", "   ")


def bucket(ms: float | None) -> str:
    """The histogram bucket of a duration: each is a tenth wider than the one before, so that ±5 % are told apart."""
    if ms is None:
        return ""
    return str(max(0, math.ceil(math.log(max(ms, _BUCKETS_START_MS) / _BUCKETS_START_MS) / _BUCKETS_GROW)))
