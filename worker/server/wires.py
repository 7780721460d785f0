"""Connections that keep the bound of their call, and that leave a server which is not the primary any more.

In a planned failover the address points to the new primary, and the former one goes on answering: writes with READONLY,
questions with old data. Such an answer closes the connection, and all of its pool that were made before. Every few
seconds a connection asks, before its next command, whether its server would accept a write.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import inf
from typing import Any

import redis
from redis import asyncio as redis_asyncio
from redis import exceptions

from worker.server.bounds import seconds_left

DEMOTED = (exceptions.ReadOnlyError, exceptions.ClusterDownError, exceptions.MovedError)
"""The answers of a server that accepts no writes, as a demoted one; to redis-py MASTERDOWN is a CLUSTERDOWN."""

LOOK_EVERY = 5.0
"""Seconds after which a connection asks again whether its server would accept a write."""

AS_IF_TO_WRITE = "#!lua\nreturn 1"
"""A script that writes nothing; because it declares no flags, a server refuses it whenever it refuses writes."""

_SHORTEST = 0.001
_EXACT_ENOUGH = 0.9


class Generations:
    """The generation of a pool's connections: a new one begins when the server of the present one was demoted."""

    def __init__(self) -> None:
        self.present = 0

    def end(self, generation: int) -> None:
        """Ends this generation, unless it has ended already: other connections may meet the same answer."""
        if generation == self.present:
            self.present += 1


class _Leaving:
    """The part of a connection that notices that its server was demoted; the same for both kinds of clients."""

    def __init__(self, *, generations: Generations, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        self._generations = generations
        self._generation = generations.present
        self._looks_at = inf
        super().__init__(**options)

    def _begin_generation(self) -> None:
        self._generation = self._generations.present
        self._looks_at = time.monotonic() + LOOK_EVERY

    def _is_left(self) -> bool:
        return self._generation != self._generations.present

    def _is_due(self) -> bool:
        return time.monotonic() > self._looks_at


class _Wire(_Leaving):
    """A blocking connection."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        self._own_timeout: float | None = None
        self._in_force: float | None = None
        super().__init__(**options)

    @property
    def socket_timeout(self) -> float | None:
        """Seconds that one wait may take now: what is left to the call, or without a bound the connection's own."""
        return _left_or(self._own_timeout)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | None) -> None:
        self._own_timeout = seconds

    @property
    def socket_connect_timeout(self) -> float | None:
        """Seconds that connecting to one address may take now."""
        return _left_or(self._socket_connect_timeout)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float | None) -> None:
        self._socket_connect_timeout = seconds

    def connect(self) -> None:
        """Connects, unless it is connected to a server that was not demoted."""
        if self._is_left():
            self.disconnect()  # type: ignore[attr-defined]
        super().connect()  # type: ignore[misc]

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connects, unless it is connected."""
        if self._sock is None:
            self._begin_generation()
            self._in_force = None
        super().connect_check_health(check_health, retry_socket_connect)  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401 - redis-py's own
        """Sends commands, unless the server was demoted."""
        if self._is_left() and self._sock is not None:
            # Not silently: whoever watches keys over this connection must hear of it.
            self.disconnect()  # type: ignore[attr-defined]
            raise _was_demoted()
        self._bound_waits()
        super().send_packed_command(command, check_health)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        """Reads an answer; one that tells that the server was demoted ends this generation of connections."""
        self._bound_waits()
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except DEMOTED:
            self._generations.end(self._generation)
            raise

    def check_health(self) -> None:
        """Asks whether the server would accept a write, if it was not asked for some seconds."""
        if not self._is_due():
            return
        self._looks_at = time.monotonic() + LOOK_EVERY
        self.send_command("EVAL", AS_IF_TO_WRITE, 0, check_health=False)  # type: ignore[attr-defined]
        try:
            self.read_response()
        except DEMOTED as error:
            self.disconnect()  # type: ignore[attr-defined]
            raise _was_demoted() from error
        except redis.ResponseError:
            pass  # a refusal is told by the command that meets it

    def _bound_waits(self) -> None:
        """Gives the socket the time that is left; not on every command, because the system is asked for it."""
        if self._sock is None:
            return
        wanted, present = self.socket_timeout, self._in_force
        if wanted is None or present is None or not _EXACT_ENOUGH * present <= wanted <= present / _EXACT_ENOUGH:
            self._sock.settimeout(wanted)
            self._in_force = wanted

    _sock: Any
    _socket_connect_timeout: float | None


def _was_demoted() -> exceptions.ConnectionError:
    return exceptions.ConnectionError("its server is not the primary any more")


def _left_or(own: float | None) -> float | None:
    left = seconds_left()
    return own if left == inf else max(_SHORTEST, left)


class Wire(_Wire, redis.Connection):
    """A connection over TCP."""


class TlsWire(_Wire, redis.SSLConnection):
    """A connection over TLS."""


class UnixWire(_Wire, redis.UnixDomainSocketConnection):
    """A connection over a unix socket."""


class _AsyncWire(_Leaving):
    """A connection of the running loop; its client bounds the calls."""

    async def connect(self) -> None:
        """Connects, unless it is connected to a server that was not demoted."""
        if self._is_left():
            await self.disconnect()  # type: ignore[attr-defined]
        await super().connect()  # type: ignore[misc]

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connects, unless it is connected."""
        if not self.is_connected:
            self._begin_generation()
        await super().connect_check_health(check_health, retry_socket_connect)  # type: ignore[misc]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Sends commands, unless the server was demoted."""
        if self._is_left() and self.is_connected:
            await self.disconnect()  # type: ignore[attr-defined]
            raise _was_demoted()
        await super().send_packed_command(command, check_health)  # type: ignore[misc]

    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        """Reads an answer; one that tells that the server was demoted ends this generation of connections."""
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc]
        except DEMOTED:
            self._generations.end(self._generation)
            raise

    async def check_health(self) -> None:
        """Asks whether the server would accept a write, if it was not asked for some seconds."""
        if not self._is_due():
            return
        self._looks_at = time.monotonic() + LOOK_EVERY
        await self.send_command("EVAL", AS_IF_TO_WRITE, 0, check_health=False)  # type: ignore[attr-defined]
        try:
            await self.read_response()
        except DEMOTED as error:
            await self.disconnect()  # type: ignore[attr-defined]
            raise _was_demoted() from error
        except redis.ResponseError:
            pass

    is_connected: bool


class AsyncWire(_AsyncWire, redis_asyncio.Connection):
    """A connection over TCP."""


class AsyncTlsWire(_AsyncWire, redis_asyncio.SSLConnection):
    """A connection over TLS."""


class AsyncUnixWire(_AsyncWire, redis_asyncio.UnixDomainSocketConnection):
    """A connection over a unix socket."""
