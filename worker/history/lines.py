"""The stored form of an event: one line of JSON with short names, in the record of its message.

It leaves out values that the record has (message, actor, queue) or that follow from others (ids). Every text of the
history becomes a line here: this module masks secrets first, and then cuts texts that are too long.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from worker.ground.secrets import mask_secrets
from worker.ground.tracebacks import bounded
from worker.history.events import (
    MAX_TEXT,
    MAX_TRACEBACK,
    ErrorInfo,
    State,
    StatusEvent,
    Subject,
    SubjectValue,
    UsualEvent,
    WorkerId,
)

_quote = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def record_id(event: StatusEvent) -> str:
    """The id of an event's record: the message's id, or that of the run outside a worker."""
    return event.message_id or event.id.rpartition(":")[0] or event.id


def to_line(event: StatusEvent) -> str:
    """The event as a line, with its newline."""
    # By hand, because every message has two. "s" comes first and "r" begins with the type: the scripts look there.
    state = event.state
    attempt = event.attempt
    line = _begin(state, event.time.timestamp(), event.worker, attempt)
    prefix = event.event[: -len(state) - 1]
    if prefix != event.actor:
        line += f',"e":{_quote(prefix)}'
    run = record_id(event) + ":"
    own = event.id.removeprefix(run)
    if own != _usual_id(attempt, state):
        line += f',"i":{_quote(own)}'
    if event.parent is not None:
        parent = event.parent.removeprefix(run)
        if parent != _usual_parent(own, attempt, state):
            line += f',"p":{_quote(parent)}'
    line += _times(event.duration_ms, event.queued_ms)
    if event.text:
        line += f',"x":{_quote(mask_secrets(event.text)[:MAX_TEXT])}'
    return _storable(line + _rest_of(event) + "}\n")


def usual_line(event: UsualEvent) -> str:
    """The event as `to_line` would write it."""
    worker = WorkerId.here()
    took = "" if event.duration_ms is None else f',"d":{event.duration_ms:.3f}'
    # At one stroke, because every message has two.
    line = (
        f'{{"s":"{event.state._value_}","t":{event.at * 1000:.0f},"w":"{worker.host}:{worker.pid}",'
        f'"n":{event.attempt}{took},"q":{event.queued_ms:.3f}'
    )
    return f"{line}}}\n" if not event.subject else _storable(f"{line}{_subject(event.subject)}}}\n")


def _begin(state: State, at: float, worker: WorkerId, attempt: int | None) -> str:
    line = f'{{"s":"{state._value_}","t":{at * 1000:.0f},"w":"{worker.host}:{worker.pid}"'
    return line if attempt is None else f'{line},"n":{attempt}'


def _times(duration_ms: float | None, queued_ms: float | None) -> str:
    line = "" if duration_ms is None else f',"d":{duration_ms:.3f}'
    return line if queued_ms is None else f'{line},"q":{queued_ms:.3f}'


def _subject(subject: Subject) -> str:
    return f',"j":{_encode({name: _masked(value) for name, value in subject.items()})}'


def _rest_of(event: StatusEvent) -> str:
    """The fields that most events do not have."""
    line = ""
    if event.blocked_ms is not None:
        line += f',"b":{event.blocked_ms:.3f},"ba":{_encode(event.blocked_at)}'
    if event.longest_block_ms is not None and event.longest_block_from_ms is not None:
        line += f',"bl":[{event.longest_block_from_ms:.3f},{event.longest_block_ms:.3f}]'
    if event.done is not None:
        line += f',"g":{_encode(event.done)},"o":{_encode(event.total)}'
    if event.by is not None:
        line += f',"y":{_quote(event.by)}'
    if event.subject:
        line += _subject(event.subject)
    error = event.error
    if error is not None:
        text, trace = mask_secrets(error.text)[:MAX_TEXT], bounded(mask_secrets(error.traceback), MAX_TRACEBACK)
        line += f',"r":{_encode([error.type, text, trace])}'
    return line


def from_line(line: str | bytes, message_id: str, actor: str, queue: str) -> StatusEvent:
    """Reads a line of `to_line`; names of a later version are skipped.

    Raises:
        ValueError: The line is not an event.
    """
    try:
        found = json.loads(line)
        state = State(found["s"])
        attempt = found.get("n")
        own = found.get("i", _usual_id(attempt, state))
        run = message_id if "i" not in found or own != message_id else ""
        parent = found.get("p", _usual_parent(own, attempt, state))
        host, pid, *_ = found["w"].split(":")
        longest_from, longest_block = found.get("bl", (None, None))
        return StatusEvent(
            event=f"{found.get('e', actor)}.{state.value}",
            state=state,
            id=f"{run}:{own}" if run else own,
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
            longest_block_ms=longest_block,
            longest_block_from_ms=longest_from,
            parent=parent and f"{message_id}:{parent}",
            by=found.get("y"),
            worker=WorkerId(host, int(pid)),
            error=ErrorInfo(*found["r"]) if "r" in found else None,
            done=found.get("g"),
            total=found.get("o"),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not an event: {line!r:.200}") from error


def _storable(text: str) -> str:
    """The text with escapes for lone surrogates, which Python makes from bytes that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _usual_id(attempt: int | None, state: State) -> str:
    return f"{attempt or 0}" if state is State.STARTED else f"{attempt or 0}.end"


def _usual_parent(own: str, attempt: int | None, state: State) -> str | None:
    if state is State.STARTED:
        return f"{attempt or 0}" if "/" in own else None
    if state in (State.REQUESTED, State.WAITING):
        return None
    return own.rpartition(".")[0]


def subject_names(subject: Subject) -> list[str]:
    """Each part of a subject as `name=value`, the key of its index."""
    return [_storable(f"{name}={_masked(value)}").translate(_SEPARATORS) for name, value in subject.items()]


def _masked(value: SubjectValue) -> SubjectValue:
    return mask_secrets(value) if isinstance(value, str) else value


_SEPARATORS = str.maketrans("\t\n\x1e\x1f", "    ")
