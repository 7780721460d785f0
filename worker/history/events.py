"""Events: facts about an attempt, or about a span inside it.

They are plain data, and do not depend on their storage.
"""

from __future__ import annotations

import os
import socket
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

MAX_TEXT = 2_000
"""The most characters of a text or an error's text that are kept: as much as a person reads on a line."""

MAX_TRACEBACK = 16_000
"""The most characters of a traceback that are kept: its end, which names the place."""

SubjectValue = str | int | float | bool | None
Subject = Mapping[str, SubjectValue]
"""The subject of a message, such as `conversation_id=…`."""


class State(StrEnum):
    """The states of an attempt, and two that are not states: PROGRESS, and REQUESTED, a person's action."""

    STARTED = "started"
    PROGRESS = "progress"
    REQUESTED = "requested"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    SNOOZED = "snoozed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Whether the state ends an attempt; the history never drops such an event."""
        return self not in {State.STARTED, State.PROGRESS, State.REQUESTED}


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error's type, its text, and the end of its traceback."""

    type: str
    text: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Describes an error and its chained causes, in bounded size."""
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        text = "".join(traceback.format_exception(error))
        return cls(name, said_by(error)[:MAX_TEXT], text[-MAX_TRACEBACK:])


def said_by(error: BaseException) -> str:
    """The error's text; if its `__str__` fails, a text that says so, so that the attempt can still end."""
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
        if _here is None or _here.pid != os.getpid():
            _here = cls(socket.gethostname(), os.getpid())
        return _here


_here: WorkerId | None = None


@dataclass(slots=True, kw_only=True)  # not frozen: that would double the time it takes to make one
class StatusEvent:
    """One event of the history.

    `event` is `<prefix>.<state>`; `parent` is the id of the STARTED event to which it belongs, or in which a span
    began. `by` is the person that asked for the action of a REQUESTED event. `blocked_ms` is the time for which the
    attempt's event loop was blocked, and `blocked_at` the place of the longest block. The message fields are None for
    events outside a worker. Times are UTC; `…_ms` are milliseconds.
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
    parent: str | None = None
    by: str | None = None
    worker: WorkerId = field(default_factory=WorkerId.here)
    error: ErrorInfo | None = None
    done: float | None = None
    total: float | None = None


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
