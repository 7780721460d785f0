"""Sends messages to the server, with a connection for each thread, in groups, with repeated tries.

A message is stored when a call returns, unless the answer says that it was not enqueued; if the call raises, the
message may be stored or not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from dramatiq.errors import ConnectionClosed
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.broker.envelope import PLAIN, Parcel
from worker.errors import ServerRefused, ServerUnreachable
from worker.server.bounds import within
from worker.server.client import RedisClient
from worker.server.connection import tries_again
from worker.server.fitness import check_fitness
from worker.server.keys import THREAD
from worker.server.line import Line
from worker.server.scripts import Argument, Script
from worker.server.troubles import is_refusal, trouble
from worker.threads.greenlets import call_among_greenlets
from worker.threads.os_threads import GEVENT

SEND_GROUP = 500
"""Messages that are enqueued in one round trip."""

FIT_FOR = 60.0
"""Seconds after which a sender asks again whether messages are safe on the server: somebody may have configured it."""

_TRIES_AGAIN = 3

T = TypeVar("T")

_ENQUEUE = Script("enqueue")
_ENQUEUE_NEW = Script("enqueue_new")
_EXPECT = Script("expect")


class Sender:
    """Enqueues messages, from any thread.

    Args:
        client: A client of the server, for the sender alone. The sender repeats tries itself, so that a message that an
            earlier try has stored, and that has ended since, does not run again.
        runner_of: Returns the runner that an actor of this name will have.
    """

    def __init__(self, client: RedisClient, runner_of: Callable[[str], str]) -> None:
        client.set_retry(Retry(NoBackoff(), 0))
        self._shared = client
        self._runner_of = runner_of
        self._told: frozenset[str] = frozenset()
        self._own = _OwnLine()
        self._fit_until = 0.0
        self._retry = tries_again(_TRIES_AGAIN, client.primary, client.bound)

    def send(self, parcels: Sequence[Parcel]) -> list[str]:
        """Enqueues messages, hundreds in each round trip.

        Returns:
            For each message an empty text if it was enqueued. Else the id of the message in its way: its own, if that
            waits, runs or was seen already; or the id of the message with its unique key.

        Raises:
            ServerUnreachable: The server did not answer; the groups before are enqueued.
            ServerRefused: The server refused, or messages would not be safe on it.
        """
        if news := {one.actor for one in parcels} - self._told:
            self._tell_runners(news)
        answers: list[str] = []
        for first in range(0, len(parcels), SEND_GROUP):
            group = parcels[first : first + SEND_GROUP]
            tries = _Tries()
            if all(one[6:] == PLAIN for one in group):
                answers += self._send_plain(group, tries)
            else:
                answers += self._send(group, tries)
        return answers

    def call(self, script: Script, arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - as the script answers
        """Runs a script with the calling thread's line.

        Raises:
            ServerUnreachable: The server did not answer, or refused: it is read-only, loads, or has no memory left.
        """
        return self._reach(lambda line: script.run(line, arguments))

    def close(self) -> None:
        """Closes the connections of all threads."""
        self._shared.connection_pool.disconnect()

    def _tell_runners(self, actors: set[str]) -> None:
        """Tells the server what these actors will run on: else their messages are moved when a worker has told it."""
        runners = ((actor, self._runner_of(actor)) for actor in actors)
        if told := [part for pair in runners if pair[1] != THREAD for part in pair]:
            self.call(_EXPECT, told)
        self._told |= actors

    def _send_plain(self, parcels: Sequence[Parcel], tries: _Tries) -> list[str]:
        """Enqueues plain messages: first all new ones, with the short script, then the others."""
        parts = [part for one in parcels for part in one[:6]]
        stored = self._reach(lambda line: tries.run(_ENQUEUE_NEW, line, parts))
        if all(stored):
            return [""] * len(parcels)
        others = iter(self._send([one for one, is_new in zip(parcels, stored, strict=True) if not is_new], tries))
        return ["" if is_new else next(others) for is_new in stored]

    def _send(self, parcels: Sequence[Parcel], tries: _Tries) -> list[str]:
        parts = [part for one in parcels for part in one]
        answers = self._reach(lambda line: tries.run(_ENQUEUE, line, [tries.lost_ms, len(parcels), *parts]))
        return [one.decode() for one in answers]

    def _reach(self, ask: Callable[[Line], T]) -> T:
        """The server's answer; asks again over a new connection if the server was restarted since, or demoted."""
        try:
            with within(self._shared.bound):
                return self._retry.call_with_retry(lambda: ask(self._fit_line()), self._reconnect)
        except (redis.RedisError, OSError) as error:
            kind = REFUSED if is_refusal(error) else UNREACHABLE
            raise kind(str(trouble(error))) from error

    def _reconnect(self, _: Exception) -> None:
        self._own.line = None
        self._fit_until = 0.0  # another server may have the address now
        self._told = frozenset()

    def _fit_line(self) -> Line:
        """The calling thread's line, to a server on which messages are safe: that is asked now and then."""
        if time.monotonic() > self._fit_until:
            check_fitness(self._shared)
            self._fit_until = time.monotonic() + FIT_FOR
        return self._line()

    def _line(self) -> Line:
        """The calling thread's line: a pool would cost as much time as the server."""
        line = self._own.line
        if line is None:
            line = self._own.line = self._shared.line()
        return line


class GreenletsSender(Sender):
    """A sender under gevent: its connections belong to greenlets, but threads of services send too."""

    def _reach(self, ask: Callable[[Line], T]) -> T:
        """Asks among the greenlets, with a connection that they share."""
        return call_among_greenlets(super()._reach, ask)

    def _line(self) -> Line:
        return self._shared.line()


def sender(client: RedisClient, runner_of: Callable[[str], str]) -> Sender:
    """The kind of sender that this program needs."""
    return (GreenletsSender if GEVENT else Sender)(client, runner_of)


class _OwnLine(threading.local):
    """A line for each thread that sends."""

    line: Line | None = None


def _also_dramatiqs(kind: type[ServerUnreachable]) -> type[ServerUnreachable]:
    """Our error, which Dramatiq's own code takes for its `ConnectionClosed`; it bears our error's name."""

    class Both(kind, ConnectionClosed):  # type: ignore[misc, valid-type]
        def __reduce__(self) -> tuple[type[ServerUnreachable], tuple[object, ...]]:
            return kind, self.args  # the name leads to our error

    Both.__name__, Both.__qualname__, Both.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Both


UNREACHABLE, REFUSED = _also_dramatiqs(ServerUnreachable), _also_dramatiqs(ServerRefused)


class _Tries:
    """The tries of one send. A try without an answer may have enqueued the messages."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._is_any_lost = False

    @property
    def lost_ms(self) -> int:
        """Milliseconds since the first try, if one got no answer; else -1."""
        return int((time.monotonic() - self._began) * 1000) + 1 if self._is_any_lost else -1

    def run(self, script: Script, line: Line, arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - as the script answers
        """Runs a script as one try."""
        try:
            return script.run(line, arguments)
        except Exception:
            self._is_any_lost = True
            raise
