"""Stores events and ends of attempts: many share a round trip, each is stored whole or not at all.

Nothing it has taken is ever given up but STARTED and progress events, in an outage; it waits for the server as long as
it must. An end is refused, not stored, when its message has meanwhile been given to another process.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from worker.broker.commits import Commit
from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.server.client import RedisClient
from worker.server.scripts import Argument, Script
from worker.threads.os_threads import new_condition

logger = get_logger(__name__)

GATHER = 0.002
"""Seconds in which what is to be stored gathers, unless somebody waits for it."""

GROUP = 128
"""Messages a script stores at most: it keeps the server from others for some milliseconds."""

GROUPS = 4
"""Groups that share a round trip at most."""

MAX_NOTES = 10_000
"""Notes that wait for the server before further ones are dropped."""

MAX_ENDS = 2_000
"""Ends that wait for the server before no further messages are taken."""

_RETRY_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)
_MEMORY_DELAY = 0.5

_COMMIT = Script("commit")
_LEAN_COMMIT = Script("commit", flags="allow-oom")


class Committer:
    """Takes notes from any thread and stores them from one of its own.

    Args:
        name: Of the process, as the server knows it.
        client: Its own.
        limits: Of the history, as the scripts read them.
        stored: Called with each note whose end is stored or refused.
    """

    def __init__(
        self, name: str, client: RedisClient, limits: Sequence[Argument], stored: Callable[[Commit], None]
    ) -> None:
        self._name = name
        self._client = client
        self._limits = limits
        self._stored = stored
        self._changed = new_condition()
        # Threads only append here, which takes no lock: all of them would wait for one another.
        self._inbox: deque[Commit | threading.Event] = deque()
        self._waiting: dict[tuple[str, int], Commit] = {}
        self._markers: list[threading.Event] = []
        self._ends = 0
        self._idle = False
        self._closed = False
        self._numbers = itertools.count()
        self.dropped = 0
        self.refused = 0
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def wait_for_room(self, timeout: float) -> bool:
        """Waits, so many seconds at most, while so many ends wait that no messages should be taken; False: still."""
        if self._backlog() < MAX_ENDS:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: self._backlog() < MAX_ENDS, timeout)

    @property
    def ends_waiting(self) -> int:
        """Ends that are not stored yet."""
        return self._ends + sum(isinstance(one, Commit) and one.is_end for one in tuple(self._inbox))

    def take(self, note: Commit) -> None:
        """Takes a note, to be stored soon."""
        if note.may_be_dropped and self._backlog() >= MAX_NOTES:
            self.dropped += 1
            return
        self._inbox.append(note)
        self._wake_up()

    def _backlog(self) -> int:
        return len(self._inbox) + len(self._waiting)

    def _wake_up(self) -> None:
        if self._idle:
            with self._changed:
                self._changed.notify_all()

    def refuse(self, message_id: str) -> None:
        """Notes that an end came too late."""
        self.refused += 1
        logger.warning("a message has gone to another process: its end is void", id=message_id)

    def flush(self, timeout: float | None) -> bool:
        """Waits until what was taken before is stored, at most so many seconds; False when it is not yet."""
        marker = threading.Event()
        self._inbox.append(marker)
        with self._changed:
            self._changed.notify_all()
        return marker.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Stores what waits, at most so many seconds, and ends; False when something is left."""
        done = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return done

    def _run(self) -> None:
        while (notes := self._next_notes()) is not None:
            self._store([self._batch(notes[first : first + GROUP]) for first in range(0, len(notes), GROUP)])
            if not self._waiting:
                # Everything that came before the markers is stored.
                for marker in self._markers:
                    marker.set()
                self._markers.clear()

    def _next_notes(self) -> list[Commit] | None:
        with self._changed:
            # Said before looking: who appends looks whether we wait after that.
            self._idle = True
            self._changed.wait_for(lambda: self._inbox or self._waiting or self._closed)
            self._idle = False
        self._sort_inbox()
        if len(self._waiting) < GROUP and not self._markers and not self._closed:
            time.sleep(GATHER)
            self._sort_inbox()
        if self._closed and not self._waiting:
            return None
        attempts = list(itertools.islice(self._waiting, GROUP * GROUPS))
        return [self._waiting.pop(attempt) for attempt in attempts]

    def _sort_inbox(self) -> None:
        """Makes the notes of an attempt one."""
        while self._inbox and not self._markers:
            note = self._inbox.popleft()
            if not isinstance(note, Commit):
                self._markers.append(note)
                continue
            self._ends += note.is_end
            known = self._waiting.setdefault(note.key, note)
            if known is not note:
                known.absorb(note)

    def _batch(self, notes: list[Commit]) -> _Batch:
        return _Batch(next(self._numbers), notes)

    def _store(self, batches: list[_Batch]) -> None:
        try:
            answers = _COMMIT.run_many(self._client, [self._arguments(batch) for batch in batches])
        except (redis.RedisError, OSError, WorkerError) as error:
            answers = [error] * len(batches)
        for batch, answer in zip(batches, answers, strict=True):
            if isinstance(answer, Exception):
                self._insist(batch, answer)
            else:
                self._settle(batch.notes, answer)
                self._recovered()

    def _insist(self, batch: _Batch, error: Exception) -> None:
        """Tries until it is stored: the same again after an answer that was lost, for the server knows its number."""
        for failures in itertools.count():
            self._failed(error)
            if isinstance(error, redis.exceptions.OutOfMemoryError):
                self._put_off(self._store_without_events(batch.notes))
                return
            if _is_about_notes(error) and failures > 0:
                self._store_each(batch.notes)
                return
            self._client.connection_pool.disconnect()
            if isinstance(error, redis.ResponseError):
                # The server has refused it: nothing of that number is stored.
                batch = self._batch(batch.notes)
            if not self._wait_to_retry(_RETRY_DELAYS[min(failures, len(_RETRY_DELAYS) - 1)], len(batch.notes)):
                return
            try:
                self._settle(batch.notes, _COMMIT.run(self._client, self._arguments(batch)))
            except (redis.RedisError, OSError, WorkerError) as again:
                error = again
            else:
                self._recovered()
                return

    def _put_off(self, notes: list[Commit]) -> None:
        """Has them wait for memory, behind what has come meanwhile: there may be some that need none."""
        if notes and self._wait_to_retry(_MEMORY_DELAY, len(notes)):
            for note in notes:
                later = self._waiting.get(note.key)
                if later is not None:
                    note.absorb(later)
                self._waiting[note.key] = note

    def _wait_to_retry(self, delay: float, waiting: int) -> bool:
        with self._changed:
            if self._closed:
                logger.error("ends of attempts were not stored: their messages will run again", count=waiting)
                return False
            self._changed.wait_for(lambda: self._closed, delay)
            return True

    def _store_each(self, notes: list[Commit]) -> None:
        """One that the server does not accept must not hold up the others."""
        if len(notes) > 1:
            for note in notes:
                self._store([self._batch([note])])
            return
        logger.error("an attempt cannot be recorded: its message will run again", id=notes[0].message.message_id)
        self._settle(notes, [])

    def _failed(self, error: Exception) -> None:
        if self.error is None:
            logger.warning("attempts cannot be recorded; they wait", error=str(error))
        self.error = " ".join(str(error).split()) or type(error).__name__

    def _recovered(self) -> None:
        if self.error is not None:
            logger.info("attempts are being recorded again", dropped=self.dropped)
            self.error = None

    def _store_without_events(self, notes: list[Commit]) -> list[Commit]:
        """What goes with no memory: successes are acknowledged, and what has no end is dropped; the rest waits."""
        lean = self._batch([note for note in notes if note.may_lose_events or not note.is_end])
        if lean.notes:
            try:
                refused = _LEAN_COMMIT.run(self._client, self._arguments(lean, lean=True))
            except (redis.RedisError, OSError) as error:
                self._failed(error)
                return notes
            self.dropped += sum(len(note.events) for note in lean.notes)
            self._settle(lean.notes, refused)
        return [note for note in notes if note.is_end and not note.may_lose_events]

    def _arguments(self, batch: _Batch, *, lean: bool = False) -> list[Argument]:
        return [f"{self._name}:{batch.number}", int(lean), *self._limits, *(note.text() for note in batch.notes)]

    def _settle(self, notes: list[Commit], refused: list[bytes]) -> None:
        ends = [note for note in notes if note.is_end]
        for note in ends:
            if refused and note.message.message_id.encode() in refused:
                self.refuse(note.message.message_id)
            self._stored(note)
        with self._changed:
            self._ends -= len(ends)
            self._changed.notify_all()


def _is_about_notes(error: Exception) -> bool:
    """Whether it lies in what is to be stored; MISCONF, BUSY and the like lie in the server, and pass."""
    if type(error) is not redis.ResponseError:
        return False
    code = str(error).partition(" ")[0]
    return not code.isupper() or code == "WRONGTYPE"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Notes that one script stores."""

    number: int
    notes: list[Commit]
