"""Connections that keep the bound of their call, and that leave a server which is not the primary any more.

In a planned failover the address points to the new primary, and the former one goes on answering: writes with READONLY,
questions with old data. Such an answer closes the connection, and all of its pool that were made before. Every few
seconds a connection asks, before its next command, whether its server would accept a write.

Where sentinels or a cluster tell where the primary is, each connection asks them before it connects, and the server
that it has found before its first command.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from math import inf
from typing import Any

import redis
from redis import asyncio as redis_asyncio
from redis import exceptions
from redis._parsers import _HiredisParser

from worker.server.bounds import bound_waits, left_or, seconds_left
from worker.server.names import addresses_of
from worker.server.primary import Primary

DEMOTED = (
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.AskError,
    exceptions.TryAgainError,
)
"""The answers of a server that accepts no writes, as a demoted one, or one whose slot moves or has moved away.

To redis-py MASTERDOWN is a CLUSTERDOWN, and MOVED an ASK.
"""


class NotEnoughReplicasError(exceptions.ReadOnlyError):
    """A primary that may be the primary no more refuses, because it has lost replicas: ask where the primary is."""


LOOK_EVERY = 5.0
"""Seconds after which a connection asks again whether its server would accept a write."""

AS_IF_TO_WRITE = "#!lua\nreturn 1"
"""A script that writes nothing; because it declares no flags, a server refuses it whenever it refuses writes."""


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

    def __init__(self, *, generations: Generations, primary: Primary | None = None, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        self._generations = generations
        self._generation = generations.present
        self._looks_at = inf
        self._primary = primary
        super().__init__(**options)

    def _begin_generation(self) -> None:
        self._generation = self._generations.present
        # One that was found may have been demoted since, and nobody has told it to whoever was asked.
        self._looks_at = time.monotonic() + (LOOK_EVERY if self._primary is None else 0.0)

    def _is_left(self) -> bool:
        return self._generation != self._generations.present

    def _is_due(self) -> bool:
        return time.monotonic() >= self._looks_at

    def _note(self, error: exceptions.ResponseError) -> None:
        """Ends this generation of connections if the answer tells that the server was demoted."""
        if self._primary is not None and str(error).startswith("NOREPLICAS"):
            self._generations.end(self._generation)
            raise NotEnoughReplicasError(str(error)) from error
        if isinstance(error, exceptions.AskError):
            code = "MOVED" if isinstance(error, exceptions.MovedError) else "ASK"
            error.args = (f"{code} {error}",)  # redis-py leaves it out, and a log would tell numbers only
        if isinstance(error, DEMOTED):
            self._generations.end(self._generation)


class _Parser(_HiredisParser):
    """A reader of answers that keeps the bound while an answer comes in pieces."""

    def on_connect(self, connection: _Wire, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().on_connect(connection, **options)  # type: ignore[no-untyped-call]
        self._socket_timeout = connection.own_timeout

    def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        self._has_waited = False
        return super().read_response(*args, **options)

    def read_from_socket(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        if self._sock is not None:
            if self._has_waited and seconds_left() <= 0:
                raise redis.TimeoutError("its answer does not end")
            self._has_waited = True
            bound_waits(self._sock, self._socket_timeout)
        return super().read_from_socket(*args, **options)  # type: ignore[no-untyped-call]


class _Wire(_Leaving):
    """A blocking connection."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        super().__init__(parser_class=_Parser, **options)

    @property
    def own_timeout(self) -> float | None:
        """Seconds that one wait may take outside of all bounds."""
        return self._socket_timeout

    @property
    def socket_timeout(self) -> float | None:
        """Seconds that one wait may take now: what is left to the call, or without a bound the connection's own."""
        return left_or(self._socket_timeout)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | None) -> None:
        self._socket_timeout = seconds

    @property
    def socket_connect_timeout(self) -> float | None:
        """Seconds that connecting to one address may take now."""
        return left_or(self._socket_connect_timeout)

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
            if self._primary is not None:
                self.host, self.port = self._primary.find()
            self._begin_generation()
        super().connect_check_health(check_health, retry_socket_connect)  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401 - redis-py's own
        """Sends commands, unless the server was demoted."""
        if self._sock is not None:
            if self._is_left():
                # Not silently: whoever watches keys over this connection must hear of it.
                self.disconnect()  # type: ignore[attr-defined]
                raise _was_demoted()
            bound_waits(self._sock, self._socket_timeout)
        super().send_packed_command(command, check_health)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        """Reads an answer; one that tells that the server was demoted ends this generation of connections."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            self._note(error)
            raise

    def check_health(self) -> None:
        """Asks whether the server would accept a write, if it was not asked for some seconds."""
        if not self._is_due():
            return
        self._looks_at = time.monotonic() + LOOK_EVERY
        self.send_command("EVAL", AS_IF_TO_WRITE, 0, check_health=False)  # type: ignore[attr-defined]
        try:
            self.read_response()
        except NotEnoughReplicasError:
            self.disconnect()  # type: ignore[attr-defined]
            raise
        except DEMOTED as error:
            self.disconnect()  # type: ignore[attr-defined]
            raise _was_demoted() from error
        except redis.ResponseError:
            pass  # a refusal is told by the command that meets it

    host: str
    port: int
    _sock: Any
    _socket_timeout: float | None
    _socket_connect_timeout: float | None


def _was_demoted() -> exceptions.ConnectionError:
    return exceptions.ConnectionError("its server is not the primary any more")


class _ByName(redis.Connection):
    """A connection that looks its server's name up within the bound, below the layer of TLS, which needs the name."""

    def _connect(self) -> Any:  # noqa: ANN401 - redis-py's own
        name = self.host
        failed = OSError(f"{name} has no address")
        try:
            for address in addresses_of(name, self.port, self.socket_type):
                self.host = address
                try:
                    return super()._connect()  # type: ignore[no-untyped-call]
                except OSError as error:
                    failed = error
        finally:
            self.host = name
        try:
            raise failed
        finally:
            del failed  # no cycle through its traceback


class Wire(_Wire, _ByName):
    """A connection over TCP."""


class TlsWire(_Wire, redis.SSLConnection, _ByName):
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
            if self._primary is not None:
                self.host, self.port = await asyncio.to_thread(self._primary.find)
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
        except redis.ResponseError as error:
            self._note(error)
            raise

    async def check_health(self) -> None:
        """Asks whether the server would accept a write, if it was not asked for some seconds."""
        if not self._is_due():
            return
        self._looks_at = time.monotonic() + LOOK_EVERY
        await self.send_command("EVAL", AS_IF_TO_WRITE, 0, check_health=False)  # type: ignore[attr-defined]
        try:
            await self.read_response()
        except NotEnoughReplicasError:
            await self.disconnect()  # type: ignore[attr-defined]
            raise
        except DEMOTED as error:
            await self.disconnect()  # type: ignore[attr-defined]
            raise _was_demoted() from error
        except redis.ResponseError:
            pass

    host: str
    port: int
    is_connected: bool


class AsyncWire(_AsyncWire, redis_asyncio.Connection):
    """A connection over TCP."""


class AsyncTlsWire(_AsyncWire, redis_asyncio.SSLConnection):
    """A connection over TLS."""


class AsyncUnixWire(_AsyncWire, redis_asyncio.UnixDomainSocketConnection):
    """A connection over a unix socket."""
