"""Bounds what connections may hold: a slow visitor is cut off, and the one that has waited for longest makes room.

It never cuts off a visitor who has sent a whole request and reads the answer.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 400
"""Connections at once that have come in, and as many at the door. Each is an open file; a process often has 1,024."""

REQUEST_WITHIN = 20.0
"""Seconds in which a whole request must come: since the connection was made, or the last one was answered."""

READ_WITHIN = 20.0
"""Seconds in which a visitor must read on when the answer cannot be sent."""

_SEND_BUFFER = 128 * 1024
"""Bytes that the system keeps of an unread answer. By itself it would keep some megabytes."""


_FEW = 50

# The standard library of C on Linux has it.
_TRIM: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


class Memory:
    """Gives memory back to the system after many connections have gone: by itself much of it would be kept for ever."""

    def __init__(self) -> None:
        self._most = 0

    def look(self, connections: int) -> None:
        """Looks at the number of connections, and tidies up when it has fallen far."""
        self._most = max(self._most, connections)
        if self._most > _FEW and connections < self._most // 2:
            self._most = connections
            # What a request leaves refers to itself, and is small for the collector, whatever it holds.
            gc.collect()
            if _TRIM is not None:
                _TRIM(0)


class _Timer:
    """Calls something once after a time, unless it is stopped."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, then: Callable[[], None]) -> None:
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, then)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Connection(Protocol):
    """A visitor at the door, or a protocol."""

    def cut_off(self) -> None:
        """Closes the connection at once, with all that was not sent or read."""
        ...


C = TypeVar("C", bound=Connection)


class Waiting(Generic[C]):
    """Connections that wait for a whole request, in the order in which they began to."""

    def __init__(self) -> None:
        self._since: dict[C, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[C]:
        return iter(self._since)

    def enter(self, one: C, since: float | None = None) -> None:
        """It waits, if it did not already: from now on, or since a time of the monotonic clock, in seconds."""
        self._since.setdefault(one, time.monotonic() if since is None else since)

    def leave(self, one: C) -> None:
        """It waits no more."""
        self._since.pop(one, None)

    def cut_off_late(self) -> None:
        """Cuts off those whose request did not come within the time."""
        latest = time.monotonic() - REQUEST_WITHIN
        for one in [one for one, since in self._since.items() if since < latest]:
            one.cut_off()


class BoundedProtocol(H11Protocol):
    """A connection of uvicorn's, within the bounds.

    Args:
        waiting: The connections of the server that wait for a whole request.
        since: Beginning of its wait, in seconds of the monotonic clock.
        head: Bytes that the visitor has sent already.
        options: Uvicorn's own.
    """

    def __init__(self, waiting: Waiting[BoundedProtocol], since: float, head: bytes, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(**options)
        self._waiting = waiting
        self._since = since
        self._head = head
        self._read_timer = _Timer()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Reads what came before it was made."""
        super().connection_made(transport)
        self._waiting.enter(self, self._since)
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if connected.family != socket.AF_UNIX:
                # Else an answer in two parts may wait 40 ms; asyncio does it only if the listening socket says "TCP".
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head, self._head = self._head, b""
        self.data_received(head)

    def data_received(self, data: bytes) -> None:
        """Reads a part of a request."""
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        super().on_response_complete()
        self._watch_request()

    def pause_writing(self) -> None:
        """Waits for the visitor to read."""
        super().pause_writing()
        self._read_timer.start(READ_WITHIN, self.cut_off)

    def resume_writing(self) -> None:
        """The visitor reads."""
        super().resume_writing()
        self._read_timer.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing any more."""
        self._forget()
        super().connection_lost(exc)

    def cut_off(self) -> None:
        """Closes the connection at once, with all that was not sent or read."""
        self._forget()
        self.connections.discard(self)
        self.transport.abort()

    def _watch_request(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing():
            self._waiting.leave(self)
        else:
            self._waiting.enter(self)

    def _forget(self) -> None:
        self._read_timer.stop()
        self._waiting.leave(self)
