"""Where events go that no broker of ours carries: those of runs outside a worker, and of Dramatiq's stock broker.

They are written in groups by a thread of its own. Writing never fails the work and never holds it up for long. While
Redis is away, or more comes than can be written, STARTED and progress events beyond a bound are dropped, counted and
told in the log; those that end an attempt wait until they can be written.
"""

from __future__ import annotations

import atexit
import os
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable

import redis

from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.history.events import StatusEvent
from worker.history.histogram import bucket
from worker.history.limits import history_limits
from worker.history.lines import record_id, subject_names, to_line
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.scripts import Argument, Script
from worker.settings import Settings, settings_in_force
from worker.threads.os_threads import new_condition, new_lock

logger = get_logger(__name__)

MAX_WAITING = 10_000
"""Events that wait before STARTED and progress events are dropped."""

GATHER = 0.005
"""Seconds in which events gather before they share a round trip, unless somebody waits for them."""

_GROUP = 500
_RETRY_DELAYS = (0.1, 0.2, 0.5, 1.0)
_NOTE = Script("note")


_writers: weakref.WeakSet[EventWriter] = weakref.WeakSet()


class EventWriter:
    """Appends events to the history.

    Args:
        open_client: Makes the client, at the first event and in the writer's own thread.
        settings: They say how much history is kept.
    """

    def __init__(self, open_client: Callable[[], RedisClient], settings: Settings) -> None:
        self._open_client = open_client
        self._limits = history_limits(settings)
        self.dropped = 0
        self.begin_anew()
        _writers.add(self)

    def begin_anew(self) -> None:
        """Forgets everything; in a forked child, where the parent's thread is not, and the parent writes its events."""
        self._client: RedisClient | None = None
        self._waiting: deque[tuple[StatusEvent, str]] = deque()
        self._group: list[tuple[StatusEvent, str]] = []
        self._changed = new_condition()
        self._taken = 0
        self._written = 0
        self._somebody_waits = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._name = uuid.uuid4().hex
        self._commits = 0

    def record(self, event: StatusEvent) -> None:
        """Takes an event to be written soon."""
        self._take(event, "")

    def record_end(self, event: StatusEvent, becomes: str) -> None:
        """Takes the event that ends an attempt or a run, and the state its message has then."""
        self._take(event, becomes)

    def _take(self, event: StatusEvent, becomes: str) -> None:
        with self._changed:
            if len(self._waiting) >= MAX_WAITING and not event.state.is_final:
                self.dropped += 1
                return
            self._waiting.append((event, becomes))
            self._taken += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="history-writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Waits, at most `timeout` seconds, until what was taken before is written; False when it is not yet."""
        with self._changed:
            goal = self._taken
            self._somebody_waits += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._written >= goal, timeout)
            finally:
                self._somebody_waits -= 1

    def close(self, timeout: float) -> bool:
        """Writes what waits, at most `timeout` seconds, and ends the thread; False when something is left unwritten."""
        done = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not done:
            logger.error("events were not written before the end", count=self._taken - self._written)
        return done

    def _write_all(self) -> None:
        failures = told = 0
        while self._next_group():
            try:
                self._append(self._group)
            except (redis.RedisError, OSError, WorkerError) as error:
                if failures == 0:
                    logger.warning("the history cannot be written; events wait", error=str(error))
                if isinstance(error, redis.ResponseError):
                    self._commits += 1  # the server knows the name, and has not stored all that bears it
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, _RETRY_DELAYS[min(failures, len(_RETRY_DELAYS) - 1)])
                failures += 1
            else:
                if failures:
                    logger.info("the history is being written again")
                failures = 0
                with self._changed:
                    self._written += len(self._group)
                    self._group = []
                    dropped = 0 if self._waiting else self.dropped - told
                    self._changed.notify_all()
                if dropped:
                    told += dropped
                    logger.warning(
                        "STARTED and progress events were dropped: more came than was written", count=dropped
                    )

    def _next_group(self) -> bool:
        """Has a group to be written, some of what waits if there is none; False at the end.

        One that could not be written is the next as it is: its answer may have been lost, and the server knows what it
        has stored by the group's name.
        """
        with self._changed:
            while not self._group:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return False
                if not self._somebody_waits:
                    self._changed.wait_for(lambda: self._somebody_waits or self._closed, GATHER)
                self._group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
            return not self._closed

    def _append(self, group: list[tuple[StatusEvent, str]]) -> None:
        if self._client is None:
            self._client = self._open_client()
        arguments: list[Argument] = [f"{self._name}:{self._commits}", *self._limits]
        for event, becomes in group:
            arguments += _arguments_of(event, becomes)
        _NOTE.run(self._client, arguments)
        self._commits += 1


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
"""Seconds that events get to be written when the process ends."""


def default_writer() -> EventWriter:
    """The process's writer to the configured server, made at its first use."""
    global _default
    with _default_lock:
        if _default is None:
            settings = settings_in_force()
            _default = EventWriter(lambda: connect(settings), settings)
        return _default


def _close_default() -> None:
    # A forked child has none until it makes its own: its parent writes what its parent recorded.
    if _default is not None:
        _default.close(EXIT_TIMEOUT)


atexit.register(_close_default)


def _forget_default() -> None:
    # A forked child has its parent's buffer and connection, but not the thread that serves them.
    global _default, _default_lock
    _default, _default_lock = None, new_lock()
    for writer in list(_writers):
        writer.begin_anew()


os.register_at_fork(after_in_child=_forget_default)
