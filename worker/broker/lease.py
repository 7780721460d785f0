"""The lease of a worker process: as long as it is renewed, what the process has taken is its own.

A thread of its own renews it, takes over what dead processes held, and enqueues delayed messages when they are due.
A process that could not renew in time has lost everything it had taken, whatever it thinks.
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
from worker.server.layout import check_layout
from worker.server.scripts import Argument, Script

logger = get_logger(__name__)

PROMOTE = 500
"""Delayed messages that are enqueued in one step."""

LOOK_AROUND_EVERY = 4
"""Rounds after which every stream is asked for readers without a lease."""

_RETRY_DELAY = 0.5
_LEAVE_TIMEOUT = 2.0

_JOIN = Script("join")
# A server without memory must not take a process for dead.
_KEEP = Script("keep", flags="allow-oom")
_LEAVE = Script("leave")


class Term(NamedTuple):
    """A time in which the lease is held without a break.

    Attributes:
        token: By which the server knows it.
        epoch: By which this process does.
    """

    token: str
    epoch: int


class Lease:
    """This process's lease, and the thread that keeps it.

    Args:
        client: Its own.
        seconds: How long the lease lasts without being renewed.
        most_starts: How often a message may take its worker down before it is a dead letter.
        limits: Of the history, as the scripts read them.
        queues: Names the queues that are read.
        lost: Called when everything that was taken has gone to others.
        about: Describes the process, for those who look at it.
        obey: Called with what people ask of the processes, and of what: `cancel` and a message's id and fence, `pause`
            or `resume` and a queue.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        seconds: float,
        most_starts: int,
        limits: Sequence[Argument],
        queues: Callable[[], Sequence[str]],
        lost: Callable[[], None],
        about: Callable[[], Mapping[str, object]],
        obey: Callable[[str, str], None],
    ) -> None:
        self._client = client
        self._seconds = seconds
        self._most_starts = most_starts
        self._limits = limits
        self._queues = queues
        self._lost = lost
        self._about = about
        self._obey = obey
        self._began_at = time.time()
        self._held = threading.Event()
        self._joined: list[str] = []
        self._held_until = 0.0
        self._ends = False
        self._rounds = -1
        self._wake = "0-0"
        self._order: str | None = None
        self.term = Term(self._new_token(), 0)
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begins to get it, and to keep it."""
        self._thread.start()

    @property
    def token(self) -> str:
        """By which the server knows it now."""
        return self.term.token

    @property
    def epoch(self) -> int:
        """The number of the term; 0 before the first."""
        return self.term.epoch

    @property
    def is_held(self) -> bool:
        """Whether what was taken is certainly still ours."""
        return self._held.is_set() and time.monotonic() < self._held_until

    @property
    def queues(self) -> list[str]:
        """The queues from which messages may be taken: the server knows that this process reads them."""
        return self._joined

    def wait_until_held(self, timeout: float) -> bool:
        """Waits until messages may be taken, so many seconds at most."""
        if len(self._queues()) == 0 or not self._held.wait(timeout):
            time.sleep(0.01)
            return False
        if len(self._queues()) > len(self._joined):
            self._join(self.token, 0)
        return True

    def lose(self, term: Term) -> None:
        """Notes that the server knows nothing of it (any more)."""
        if term == self.term:
            self._held.clear()
            self._held_until = 0.0

    def close(self) -> None:
        """Gives it up: others take over at once what is still held."""
        self._ends = True
        try:
            self._client.xadd(self._client.namespace.wake, {"due": "0"}, maxlen=1)
            self._thread.join(_LEAVE_TIMEOUT)
            _LEAVE.run(self._client, [self.token])
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
        self._join(token, round(self._seconds * 1000))
        self._held_until = asked_at + self._seconds
        self.term = Term(token, self.epoch + 1)
        self._held.set()

    def _join(self, token: str, milliseconds: int) -> None:
        queues = list(self._queues())
        _, newest_order = _JOIN.run(self._client, [token, milliseconds, self._described(), *queues])
        self._joined = queues
        self._order = self._order or newest_order.decode()

    def _described(self) -> str:
        """What is known of the process."""
        known: dict[str, object] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": list(self._queues()),
            "at": self._began_at,
            "lease_ms": round(self._seconds * 1000),
        }
        return json.dumps(known | dict(self._about()))

    def _keep(self) -> float:
        """Does the rounds; answers in how many seconds the next are due."""
        asked_at = time.monotonic()
        self._rounds += 1
        arguments: list[Argument] = [
            self.token,
            round(self._seconds * 1000),
            self._described(),
            self._most_starts,
            PROMOTE,
            int(self._rounds % LOOK_AROUND_EVERY == 0),
            *self._limits,
        ]
        held, next_due, newest, lost, _ = _KEEP.run(self._client, arguments)
        if lost:
            logger.warning("attempts were lost with their worker", count=lost)
        if not held:
            logger.error("the lease has run out: what was taken has gone to others", token=self.token)
            self.lose(self.term)
            return 0.0
        self._held_until = asked_at + self._seconds
        self._wake = newest.decode()
        pause = self._seconds / 4
        return pause if next_due < 0 else min(pause, next_due / 1000)

    def _wait(self, seconds: float) -> None:
        """Waits, but no longer than until a delayed message becomes the next that is due; obeys what is asked."""
        block = max(1, round(seconds * 1000)) if seconds > 0 else None
        keys = self._client.namespace
        answer: Any = self._client.xread({keys.wake: self._wake, keys.orders: self._order or "$"}, block=block)
        for stream, entries in streams_in(answer):
            for entry, fields in entries if stream == keys.orders.encode() else ():
                self._order = entry.decode()
                for action, what in fields.items():
                    self._obey(action.decode(), what.decode())
