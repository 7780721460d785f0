"""How messages get to the server from those who send: each thread's own connection, groups, and one more try.

Whoever sends is never left in doubt: what was sent is stored when a call returns, else it raises.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import redis
from dramatiq.errors import ConnectionClosed

from worker.broker.envelope import NOT_DELAYED, Parcel
from worker.errors import ServerUnreachable
from worker.greenlets import call_among_greenlets
from worker.os_threads import GEVENT
from worker.scripts import RECORDS, Argument, Script

SEND_GROUP = 500
"""Messages that are enqueued in one round trip."""

_ENQUEUE = Script(RECORDS, ("worker.broker.scripts", "enqueue.lua"))
_ENQUEUE_NEW = Script(("worker.broker.scripts", "enqueue_new.lua"))


class Sender:
    """Enqueues messages, from any thread.

    Args:
        client: Whose server it is.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._shared = client
        self._own = _OwnClient()

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Enqueues messages, hundreds in each round trip; those that wait or run already are not enqueued twice.

        Raises:
            ServerUnreachable: The server did not answer; the groups before are enqueued.
        """
        for first in range(0, len(parcels), SEND_GROUP):
            group = parcels[first : first + SEND_GROUP]
            known = group if any(map(_is_special, group)) else self._send_new(group)
            if known:
                self._send(known)

    def send_unique(self, parcel: Parcel) -> str:
        """Enqueues a message unless another has its unique key: the id of that, or an empty text.

        Raises:
            ServerUnreachable: The server did not answer.
        """
        (holder,) = self._send([parcel])
        return holder.decode()

    def call(self, script: Script, arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - as the script answers
        """Runs a script with the client of those who send.

        Raises:
            ServerUnreachable: The server did not answer, or refused: it is read-only, loads, or has no memory left.
        """
        try:
            try:
                return script.run(self._client(), arguments)
            except redis.ConnectionError:
                # The server was started anew since this thread last sent. What waits or runs is not enqueued twice.
                self._own.client = None
                return script.run(self._client(), arguments)
        except redis.ResponseError as error:
            raise _Unreachable(f"the message server refuses: {error}") from error  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            self._own.client = None
            raise _Unreachable(f"the message server does not answer: {error}") from error  # type: ignore[no-untyped-call]

    def _send_new(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Enqueues the new ones among messages, with nothing special about them; answers with the others."""
        stored = self.call(_ENQUEUE_NEW, [part for one in parcels for part in one[:5]])
        return [one for one, is_stored in zip(parcels, stored, strict=True) if not is_stored]

    def _send(self, parcels: Sequence[Parcel]) -> list[bytes]:
        answer: list[bytes] = self.call(_ENQUEUE, [len(parcels), *(part for one in parcels for part in one)])
        return answer

    def _client(self) -> redis.Redis:
        """The calling thread's client, with a connection of its own: the pool would take as long as the server."""
        client = self._own.client
        if client is None:
            client = self._own.client = self._shared.client()  # type: ignore[no-untyped-call]
        return client


class GreenletsSender(Sender):
    """The same under gevent: connections are the greenlets', and services send from threads too."""

    def call(self, script: Script, arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - as the script answers
        """Runs a script among the greenlets, with a connection that they share."""
        return call_among_greenlets(super().call, script, arguments)

    def _client(self) -> redis.Redis:
        return self._shared


def sender(client: redis.Redis) -> Sender:
    """The kind of sender that this program needs."""
    return GreenletsSender(client) if GEVENT else Sender(client)


class _OwnClient(threading.local):
    """A client for each thread that sends."""

    client: redis.Redis | None = None


class _Unreachable(ServerUnreachable, ConnectionClosed):
    """Ours for those who send, Dramatiq's for its own code."""


def _is_special(parcel: Parcel) -> bool:
    return parcel.delay_ms != NOT_DELAYED or parcel.unique != ""
