"""A server that accepts connections and never answers: as one that swaps, or a firewall that forgets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.support.scene import HOST


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The port of such a server, for as long as the block runs."""
    accepted: list[socket.socket] = []
    with socket.create_server((HOST, 0), backlog=128) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    for one in accepted:
        one.close()
