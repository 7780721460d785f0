"""The heartbeat of a worker process: while it renews the process's lease, its messages belong to it.

A thread of its own renews the lease, takes over the messages of dead processes, and enqueues delayed messages when they
are due. A process that does not renew in time has lost all its messages, even if it does not know it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.server.client import RedisClient
from worker.server.connection import streams_in
from worker.server.fitness import check_fitness
from worker.server.layout import check_layout
from worker.server.scripts import Argument, Script

logger = get_logger(__name__)

PROMOTE = 500
"""Delayed messages that are enqueued in one step."""

LOOK_AROUND_EVERY = 4
"""Rounds between two searches of all streams for readers without a lease."""

LOOK_AT = 500
"""Messages that are looked at in one search for those that are gone."""

_NAMED = 10
_RETRY_DELAY = 0.5
_LEAVE_TIMEOUT = 2.0

_JOIN = Script("join")
# A server without memory must still accept the renewal.
_KEEP = Script("keep", flags="allow-oom")
_LEAVE = Script("leave")
_GONE = Script("gone")


class Runners(NamedTuple):
    """The runners of a process.

    Attributes:
        own: The runners that it has: `thread`, `loop`, or both.
        of_actors: The runner of each actor, by its names as the server is told them.
    """

    own: Sequence[str]
    of_actors: Mapping[str, str]


class Term(NamedTuple):
    """A time in which the lease is held without a break.

    Attributes:
        token: The term's name on the server.
        epoch: The term's number in this process.
    """

    token: str
    epoch: int


class Heartbeat:
    """The thread that keeps this process's lease.

    Args:
        client: A client of its own.
        seconds: Seconds that the lease lasts without being renewed.
        most_starts: The number of times that a message may take its worker down before it is a dead letter.
        limits: The limits of the history, as the scripts read them.
        queues: Returns the names of the queues that are read.
        runners: Returns the runners of this process, and the one of each actor.
        lost: Called after all taken messages have gone to other processes.
        about: Returns the description of the process, for people.
        obey: Called with each order of people and its target: `cancel` with a message's id and fence, `pause` or
            `resume` with a queue.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        seconds: float,
        most_starts: int,
        limits: Sequence[Argument],
        queues: Callable[[], Sequence[str]],
        runners: Callable[[], Runners],
        lost: Callable[[], None],
        about: Callable[[], Mapping[str, object]],
        obey: Callable[[str, str], None],
    ) -> None:
        self._client = client
        self._seconds = seconds
        self._most_starts = most_starts
        self._limits = limits
        self._queues = queues
        self._runners = runners
        self._lost = lost
        self._about = about
        self._obey = obey
        self._began_at = time.time()
        self._held = threading.Event()
        self._joined: list[str] = []
        self._held_until = 0.0
        self._ends = False
        self._was_told = False
        self._rounds = -1
        self._looked_until = (0, 0)
        self._dead_letters_will_go = False
        self._wake = "0-0"
        self._order: str | None = None
        self.term = Term(self._new_token(), 0)
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Starts the thread that takes the lease and renews it."""
        self._thread.start()

    @property
    def token(self) -> str:
        """The name of the present term on the server."""
        return self.term.token

    @property
    def epoch(self) -> int:
        """The number of the present term; 0 before the first."""
        return self.term.epoch

    @property
    def is_held(self) -> bool:
        """Whether the taken messages certainly still belong to this process."""
        return self._held.is_set() and time.monotonic() < self._held_until

    @property
    def queues(self) -> list[str]:
        """The queues from which messages may be taken: the server knows that this process reads them."""
        return self._joined

    def wait_until_held(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds until messages may be taken; False if they may not."""
        if len(self._queues()) == 0 or not self._held.wait(timeout):
            time.sleep(0.01)
            return False
        if len(self._queues()) > len(self._joined):
            self._join(self.token, 0)
        return True

    def lose(self, term: Term) -> None:
        """Records that the server does not know the term."""
        if term == self.term:
            self._held.clear()
            self._held_until = 0.0

    def tell_end(self, client: RedisClient) -> None:
        """Tells the server, through a client of the caller, that this process was told to end.

        Raises:
            ServerUnreachable: The server did not answer.
        """
        # Say first, then look: docs/explanation/waking-without-a-lock.md. A term that begins is there, then looks.
        self._was_told = True
        _LEAVE.run(client, [self.token, 0])

    def close(self) -> None:
        """Releases the lease: other processes take over its messages at once."""
        self._ends = True
        try:
            self._client.xadd(self._client.namespace.wake, {"due": "0"}, maxlen=1)
            self._thread.join(_LEAVE_TIMEOUT)
            _LEAVE.run(self._client, [self.token, 1])
        except (redis.RedisError, OSError, WorkerError) as error:
            logger.warning("the lease is left to expire", error=str(error))

    def _new_token(self) -> str:
        return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def _run(self) -> None:
        while not self._ends:
            try:
                if not self._held.is_set():
                    self._begin_anew()
                pause = self._keep()
                self._wait(pause)
                self.error = None
            except Exception as error:
                if self.error is None:
                    expected = isinstance(error, (redis.RedisError, OSError, WorkerError))
                    logger.warning("the lease cannot be renewed", error=str(error), exc_info=not expected)
                self.error = " ".join(str(error).split()) or type(error).__name__
                self._client.connection_pool.disconnect()
                time.sleep(_RETRY_DELAY)

    def _begin_anew(self) -> None:
        if self.epoch > 0:
            self._lost()
        token = self.token if self.epoch == 0 else self._new_token()
        asked_at = time.monotonic()
        check_layout(self._client)
        check_fitness(self._client)
        self._join(token, round(self._seconds * 1000))
        self._held_until = asked_at + self._seconds
        self.term = Term(token, self.epoch + 1)
        if self._was_told:
            _LEAVE.run(self._client, [token, 0])
        self._held.set()

    def _join(self, token: str, milliseconds: int) -> None:
        """Says what this process reads and runs. Without a lease, it replaces only what dead processes have said."""
        queues = list(self._queues())
        own, actors = self._runners()
        arguments: list[Argument] = [token, milliseconds, self._described(), len(own), *own, len(queues), *queues]
        arguments += [part for pair in actors.items() for part in pair]
        _, newest_order = _JOIN.run(self._client, arguments)
        self._joined = queues
        self._order = self._order or newest_order.decode()

    def _described(self) -> str:
        """The description of the process."""
        known: dict[str, object] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": list(self._queues()),
            "at": self._began_at,
            "lease_ms": round(self._seconds * 1000),
        }
        return json.dumps(known | dict(self._about()))

    def _keep(self) -> float:
        """Does one round; returns the seconds until the next is due."""
        asked_at = time.monotonic()
        self._rounds += 1
        looks_around = self._rounds % LOOK_AROUND_EVERY == 0
        if looks_around and self._rounds > 0:
            self._join(self.token, 0)
        arguments: list[Argument] = [
            self.token,
            round(self._seconds * 1000),
            self._described(),
            self._most_starts,
            PROMOTE,
            int(looks_around),
            *self._limits,
        ]
        held, next_due, newest, lost, _, dead_bytes = _KEEP.run(self._client, arguments)
        if lost:
            logger.warning("attempts were lost with their worker", count=lost)
        if not held:
            logger.error("the lease has run out: what was taken has gone to others", lease=self.token)
            self.lose(self.term)
            return 0.0
        self._held_until = asked_at + self._seconds
        if looks_around:
            self._look_for_gone()
            self._tell_dead_letters_will_go(dead_bytes)
        self._wake = newest.decode()
        pause = self._seconds / 4
        return pause if next_due < 0 else min(pause, next_due / 1000)

    def _look_for_gone(self) -> None:
        """Looks at some of the messages that wait or run: whether they, or their places, are gone from the server."""
        arguments = [*self._looked_until, LOOK_AT, self._most_starts, self._limits[0], *self._joined]
        segment, place, number, *ids = _GONE.run(self._client, arguments)
        self._looked_until = segment, place
        gone, mended = ids[:number], ids[number:]
        if gone:
            logger.error(
                "messages are gone from the server, which evicted or lost them: they will not run",
                count=len(gone),
                ids=_named(gone),
            )
        if mended:
            logger.error(
                "messages had lost their places on the server, which evicted or lost these: they are enqueued again",
                count=len(mended),
                ids=_named(mended),
            )

    def _tell_dead_letters_will_go(self, dead_bytes: int) -> None:
        """Logs it once when dead letters near their bound; the server drops none before that."""
        if dead_bytes and not self._dead_letters_will_go:
            logger.warning(
                "dead letters near WORKER_DEAD_BYTES: the oldest will go",
                bytes=dead_bytes,
                limit=self._limits[-1],
                remedy="replay them, purge them, or raise it",
            )
        self._dead_letters_will_go = bool(dead_bytes)

    def _wait(self, seconds: float) -> None:
        """Waits at most `seconds`, or until a new delayed message is due sooner; obeys the orders of people."""
        block = max(1, round(seconds * 1000)) if seconds > 0 else None
        keys = self._client.namespace
        answer: Any = self._client.xread({keys.wake: self._wake, keys.orders: self._order or "$"}, block=block)
        for stream, entries in streams_in(answer):
            for entry, fields in entries if stream == keys.orders.encode() else ():
                self._order = entry.decode()
                for action, what in fields.items():
                    self._obey(action.decode(), what.decode())


def _named(ids: Sequence[bytes]) -> list[str]:
    return [one.decode() for one in ids[:_NAMED]]
