"""Writes the events that our own broker does not store: of runs outside a worker, and of Dramatiq's stock broker.

A thread of its own writes them in groups. Writing never fails the work and never delays it for long. If Redis is away,
or there are more events than it can write, STARTED and progress events above a bound are dropped, counted and logged;
events that end an attempt wait until they can be written.
"""

from __future__ import annotations

import atexit
import os
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from worker.ground.logs import get_logger
from worker.history.events import StatusEvent
from worker.history.histogram import bucket
from worker.history.limits import history_limits
from worker.history.lines import record_id, subject_names, to_line
from worker.history.storing import Pace, StoringThread
from worker.history.waiting import Item
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.scripts import Argument, Script
from worker.settings import Settings
from worker.threads.os_threads import new_lock

logger = get_logger(__name__)

MAX_WAITING = 10_000
"""Events that wait before STARTED and progress events are dropped."""

GATHER = 0.005
"""Seconds in which events gather before they share a round trip, unless a caller waits for them."""

GROUP = 500
"""Events that share a round trip at most."""

_WRITE = Script("write_events")


_writers: weakref.WeakSet[EventWriter] = weakref.WeakSet()


@dataclass(frozen=True, slots=True, eq=False)
class _Taken(Item):
    """An event, and the state that its message has after it; empty: it does not end the attempt."""

    event: StatusEvent
    becomes: str

    @property
    def may_be_dropped(self) -> bool:
        return not self.event.state.is_final


class EventWriter(StoringThread[_Taken]):
    """Appends events to the history.

    Args:
        open_client: Makes the client, at the first event and in the writer's own thread.
        settings: The settings with the limits of the history.
    """

    def __init__(self, open_client: Callable[[], RedisClient], settings: Settings) -> None:
        super().__init__(
            "history-writer", uuid.uuid4().hex, open_client, Pace(GATHER, GROUP, at_once=1, most=MAX_WAITING)
        )
        self._limits = history_limits(settings)
        _writers.add(self)

    def record(self, event: StatusEvent) -> None:
        """Takes an event, and writes it soon."""
        self.take(_Taken(event, ""))

    def record_end(self, event: StatusEvent, becomes: str) -> None:
        """Takes the event that ends an attempt or a run; `becomes` is the message's state after it."""
        self.take(_Taken(event, becomes))

    def send(self, client: RedisClient, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        """Appends groups of events."""
        return _WRITE.run_many(client, calls)

    def arguments(self, name: str, items: Sequence[_Taken]) -> list[Argument]:
        """The script's arguments for a group of events."""
        arguments: list[Argument] = [name, *self._limits]
        for item in items:
            arguments += _arguments_of(item.event, item.becomes)
        return arguments

    def give_up(self, items: Sequence[_Taken], why: str) -> None:
        """Leaves events out."""
        logger.error("events are not stored", why=why, count=len(items), id=items[0].event.id)


def _arguments_of(event: StatusEvent, becomes: str) -> list[Argument]:
    subjects = subject_names(event.subject)
    ends = event.state.is_final and becomes != ""
    return [
        record_id(event),
        event.queue or "",
        event.actor or "",
        event.attempt or 0,
        becomes,
        event.state.value if ends else "",
        event.error.type if ends and event.error is not None else "",
        bucket(event.duration_ms) if ends else "",
        bucket(event.queued_ms) if ends else "",
        to_line(event),
        len(subjects),
        *subjects,
    ]


_default: EventWriter | None = None
_default_lock = new_lock()

EXIT_TIMEOUT = 5.0
"""Seconds for writing events when the process ends."""


def default_writer() -> EventWriter:
    """The process's writer to the configured server, made at its first use."""
    global _default
    with _default_lock:
        if _default is None:
            settings = Settings.in_force()
            _default = EventWriter(lambda: connect(settings), settings)
        return _default


def _close_default() -> None:
    # A forked child has no writer until it makes one: its parent writes the parent's events.
    if _default is not None:
        _default.close(EXIT_TIMEOUT)


atexit.register(_close_default)


def _forget_default() -> None:
    # A forked child has its parent's buffer and connection, but not the thread for them.
    global _default, _default_lock
    _default, _default_lock = None, new_lock()
    for writer in list(_writers):
        writer.begin_anew(uuid.uuid4().hex)


os.register_at_fork(after_in_child=_forget_default)
