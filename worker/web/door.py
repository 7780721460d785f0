"""Accepts connections, and reads the head of the first request of each before anything is made for it.

A thousand strangers who connect at once cost a socket each, and a probe goes first, so that it is answered in time. No
visitor ever waits because another one has not sent its request.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from collections.abc import Callable, Collection, Sequence

from worker.ground.logs import get_logger
from worker.web.connections import MOST, BoundedProtocol, Waiting

WAITING_TO_BE_ACCEPTED = 4_096
"""Connections that wait to be accepted. The system drops others, and they come again a second later: probes too."""

_ACCEPTED_AT_ONCE = 200
"""Connections that are accepted in one turn of the loop."""

_PAUSE = 1.0
"""Seconds without accepting when the system has no more open files, as in asyncio."""

_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_PROBE = re.compile(rb"(GET|HEAD) /health/")

_END_OF_HEAD = re.compile(rb"\n\r?\n")

_MOST_HEAD = 16 * 1024
"""Bytes of a head; what is longer is for the protocol to refuse."""

_NO_REQUEST = 0x20
"""A request begins with a letter; the protocol refuses what begins with this byte or a lower one, as TLS does."""

logger = get_logger(__name__)


class Visitor:
    """A connection of which the head of the first request has not come whole.

    Attributes:
        socket: Its socket.
        since: Time at which it came, in seconds of the monotonic clock.
        head: Bytes that it has sent.
    """

    __slots__ = ("__weakref__", "_door", "head", "since", "socket")

    def __init__(self, door: Door, connected: socket.socket) -> None:
        self._door = door
        self.socket = connected
        self.since = time.monotonic()
        self.head = b""

    def read(self) -> None:
        """Reads what it has sent; once the head is whole, its turn comes."""
        try:
            data = self.socket.recv(65_536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.cut_off()
            return
        before = len(self.head)
        self.head += data
        if _END_OF_HEAD.search(self.head, max(0, before - 2)) or before > _MOST_HEAD or self.head[0] <= _NO_REQUEST:
            self._door.admit(self)

    def cut_off(self) -> None:
        """Closes the connection."""
        self._door.forget(self)
        self.socket.close()


class Door:
    """The door by which connections of a server come in.

    Args:
        listening: The bound sockets.
        inside: The connections that have come in and wait for a whole request.
        protocols: All connections that have come in.
        protocol: Makes the protocol of a visitor.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        inside: Waiting[BoundedProtocol],
        protocols: Collection[object],
        protocol: Callable[[Visitor], BoundedProtocol],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._outside = Waiting[Visitor]()
        self._inside = inside
        self._protocols = protocols
        self._protocol = protocol
        self._admitted: dict[Visitor, None] = {}
        self._begins = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._outside) + self._come_in

    @property
    def _come_in(self) -> int:
        return len(self._tasks) + len(self._protocols)

    def open(self) -> None:
        """Begins to accept."""
        for one in self._listening:
            one.setblocking(False)
            one.listen(WAITING_TO_BE_ACCEPTED)
            self._loop.add_reader(one, self._accept, one)

    async def close(self) -> None:
        """Accepts no more; who has sent a head comes in, the others are cut off."""
        for one in self._listening:
            self._loop.remove_reader(one)
        for visitor in list(self._admitted):
            self._begin(visitor)
        if self._tasks:
            await asyncio.wait(self._tasks)
        for visitor in list(self._outside):
            visitor.cut_off()

    def cut_off_late(self) -> None:
        """Cuts off those whose request did not come within the time."""
        self._outside.cut_off_late()
        self._inside.cut_off_late()

    def admit(self, visitor: Visitor) -> None:
        """Lets it in when its turn comes: a probe at once, others in order."""
        self._loop.remove_reader(visitor.socket)
        self._admitted[visitor] = None
        if _PROBE.match(visitor.head):
            self._begin(visitor)
        elif not self._begins:
            self._begins = True
            self._loop.call_soon(self._go_on)

    def forget(self, visitor: Visitor) -> None:
        """Keeps nothing of a visitor that is cut off."""
        self._loop.remove_reader(visitor.socket)
        self._admitted.pop(visitor, None)
        self._outside.leave(visitor)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connected, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_MORE_FILES:
                    raise
                self._pause(listening, error)
                return
            self._welcome(connected)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        logger.error(
            "no connection can be accepted", error=str(error), remedy="raise the limit of open files (ulimit -n)"
        )
        self._loop.remove_reader(listening)
        self._loop.call_later(_PAUSE, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:  # it was not closed meanwhile
            self._loop.add_reader(listening, self._accept, listening)

    def _welcome(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        visitor = Visitor(self, connected)
        self._outside.enter(visitor, visitor.since)
        self._loop.add_reader(connected, visitor.read)
        visitor.read()
        if len(self._outside) > MOST:
            self._make_room_outside()

    def _make_room_outside(self) -> None:
        oldest = next(iter(self._outside))
        oldest.read()  # it may have sent a probe's request meanwhile, and come in
        if len(self._outside) > MOST:
            oldest.cut_off()

    def _go_on(self) -> None:
        """Lets one in; more in one turn would be in the process, where none can be cut off, before one is answered."""
        self._begins = bool(self._admitted)
        if self._admitted:
            self._begin(next(iter(self._admitted)))
            self._loop.call_soon(self._go_on)

    def _begin(self, visitor: Visitor) -> None:
        del self._admitted[visitor]
        if self._come_in >= MOST and not self._make_room_inside() and not _PROBE.match(visitor.head):
            visitor.cut_off()
            return
        self._outside.leave(visitor)
        task = self._loop.create_task(self._let_in(visitor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_room_inside(self) -> bool:
        for oldest in self._inside:
            oldest.cut_off()
            return True
        return False

    async def _let_in(self, visitor: Visitor) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._protocol(visitor), visitor.socket)
        except OSError:  # it has left
            visitor.socket.close()
