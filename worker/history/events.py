"""Events: facts about an attempt, or about a span inside it.

They are plain data, and do not depend on their storage.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from worker.ground.groups import deciding, errors_in
from worker.ground.tracebacks import bounded, whole

MAX_TEXT = 2_000
"""The most characters of a text or an error's text that are kept: as much as a person reads on a line."""

MAX_TRACEBACK = 16_000
"""The most characters of a traceback that are kept: its begin and its end, which names the place."""

TAKEN_TEXT, TAKEN_TRACEBACK = 2 * MAX_TEXT, 2 * MAX_TRACEBACK
"""The most characters that an event takes: secrets are masked before a text is cut, as half a secret is not seen."""

SubjectValue = str | int | float | bool | None
Subject = Mapping[str, SubjectValue]
"""The subject of a message, such as `conversation_id=…`."""


class State(StrEnum):
    """The states of an attempt, and three other kinds of events.

    These are PROGRESS; REQUESTED, a person's action; and WAITING, of a message that no worker here can run.
    """

    STARTED = "started"
    PROGRESS = "progress"
    REQUESTED = "requested"
    WAITING = "waiting"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    SNOOZED = "snoozed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Whether the state ends an attempt; the history never drops such an event."""
        return self not in {State.STARTED, State.PROGRESS, State.REQUESTED, State.WAITING}


MAX_TYPES = 20
"""The most types of errors in a group that are kept."""

TYPES_BETWEEN = ", "
"""The separator of the types in the type of a group of errors."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error's type, its text, and its traceback.

    For a group of errors, type and text name each of them, the one that decides first.
    """

    type: str
    text: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Describes an error and its chained causes, in bounded size."""
        types = list(dict.fromkeys(_type_of(one) for one in _first_that_decides(error)))[:MAX_TYPES]
        traced = bounded(whole(error, MAX_TEXT), TAKEN_TRACEBACK)
        return cls(TYPES_BETWEEN.join(types), said_by(error)[:TAKEN_TEXT], traced)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of the errors in a group, first that of the one that decides; of another error, its type."""
        return tuple(self.type.split(TYPES_BETWEEN))

    @property
    def name(self) -> str:
        """The type without its module; of a group, each of them."""
        return TYPES_BETWEEN.join(one.rpartition(".")[2] for one in self.types)

    @property
    def line(self) -> str:
        """The name and the first line of the text; an error without a text is its name alone."""
        said = self.text.strip().splitlines()
        return f"{self.name}: {said[0]}" if said else self.name


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _first_that_decides(error: BaseException) -> list[BaseException]:
    decides = deciding(error)
    return [decides, *(one for one in errors_in(error) if one is not decides)]


def said_by(error: BaseException) -> str:
    """The error's text; of a group, the texts of the errors in it, first of the one that decides."""
    first, *others = _first_that_decides(error)
    further = dict.fromkeys(f"{type(one).__qualname__}: {_text_of(one)}" for one in others)
    return f"{_text_of(first)} (and {'; '.join(further)})" if further else _text_of(first)


def _text_of(error: BaseException) -> str:
    # A failing `__str__` must not keep the attempt from its end.
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - an edge: a service's own `__str__` may raise anything
        return f"its text cannot be read: {type(failure).__name__}"


@dataclass(frozen=True, slots=True)
class WorkerId:
    """A worker process."""

    host: str
    pid: int

    @classmethod
    def here(cls) -> WorkerId:
        """This process."""
        global _here
        here = _here
        if here is None:
            here = _here = cls(socket.gethostname(), os.getpid())
        return here


_here: WorkerId | None = None


def _forget_here() -> None:
    # A forked child is another process.
    global _here
    _here = None


os.register_at_fork(after_in_child=_forget_here)


@dataclass(slots=True, kw_only=True)  # not frozen: that would double the time it takes to make one
class StatusEvent:
    """One event of the history.

    `event` is `<prefix>.<state>`; `parent` is the id of the STARTED event to which it belongs, or in which a span
    began. `by` is the person that asked for the action of a REQUESTED event. `blocked_ms` is the time for which the
    attempt blocked its event loop. `blocked_at` is the place of the longest block, `longest_block_ms` its time, and
    `longest_block_from_ms` the time from the attempt's begin to it. The message fields are None for events outside a
    worker. Times are UTC; `…_ms` are milliseconds.
    """

    event: str
    state: State
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    actor: str | None = None
    queue: str | None = None
    message_id: str | None = None
    attempt: int | None = None
    subject: Subject = field(default_factory=dict)
    text: str = ""
    duration_ms: float | None = None
    queued_ms: float | None = None
    blocked_ms: float | None = None
    blocked_at: str | None = None
    longest_block_ms: float | None = None
    longest_block_from_ms: float | None = None
    parent: str | None = None
    by: str | None = None
    worker: WorkerId = field(default_factory=WorkerId.here)
    error: ErrorInfo | None = None
    done: float | None = None
    total: float | None = None


@dataclass(slots=True)
class UsualEvent:
    """STARTED or COMPLETED of an attempt in which nothing else happened: only what such an event has.

    Attributes:
        state: The state.
        at: The time, in seconds since the epoch.
        attempt: The number of the attempt.
        queued_ms: Milliseconds for which its message had waited.
        subject: The subject of the message.
        duration_ms: Milliseconds that the attempt took, or None for STARTED.
    """

    state: State
    at: float
    attempt: int
    queued_ms: float
    subject: Subject
    duration_ms: float | None = None


class Recorder(Protocol):
    """Takes events for storage; it never raises, and never blocks for long."""

    def record(self, event: StatusEvent) -> None:
        """Takes an event, and stores it soon."""

    def record_end(self, event: StatusEvent, becomes: str) -> None:
        """Takes the event that ends an attempt; `becomes` is the message's state after it."""


class Writer(Recorder, Protocol):
    """A recorder with a thread that writes."""

    def flush(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds until all taken events are stored; False if they are not."""
