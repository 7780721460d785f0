"""Servers whose answers never end: one that says nothing, as a firewall that forgets, and one that says it slowly."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator

from tests.support.scene import HOST


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers, for as long as the block runs."""
    with _server(lambda _: None) as port:
        yield port


@contextlib.contextmanager
def dripping_server(every: float) -> Iterator[int]:
    """The port of a server whose one answer is a number with a further digit every so many seconds, without an end."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for piece in itertools.chain(b":", itertools.repeat(ord("1"))):
                connection.sendall(bytes([piece]))
                if ended.wait(every):
                    return

    with _server(lambda connection: threading.Thread(target=drip, args=(connection,), daemon=True).start()) as port:
        yield port
        ended.set()


@contextlib.contextmanager
def _server(accepted: Callable[[socket.socket], object]) -> Iterator[int]:
    connections: list[socket.socket] = []
    with socket.create_server((HOST, 0), backlog=128) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connections.append(listener.accept()[0])
                    accepted(connections[-1])

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    for one in connections:
        one.close()
