"""A TCP proxy that cuts connections at random, and can be pointed elsewhere."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

from tests.support.scene import HOST

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes on to `port`, and cuts connections while it is told to."""

    def __init__(self, port: int, seed: int) -> None:
        self._target = port
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._frozen: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server((HOST, 0))
        self._open = True
        self.cuts = 0
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_one(self) -> None:
        """Cuts a connection, wherever in its stream it is."""
        with self._lock:
            if self._pairs:
                self._cut(self._random.choice(self._pairs))
                self.cuts += 1

    def cut(self, times: int) -> None:
        """Cuts so many connections, one after another, at random times."""
        end = self.cuts + times
        while self.cuts < end:
            time.sleep(self._random.expovariate(20))
            self.cut_one()

    def freeze(self) -> None:
        """Passes nothing more on over the connections that there are, and tells nobody: as a firewall that forgets."""
        with self._lock:
            self._frozen.update(self._pairs)

    def point_at(self, port: int) -> None:
        """Leads new connections to another port; those that there are stay where they are."""
        self._target = port

    def close(self) -> None:
        self._open = False
        self._listener.close()
        with self._lock:
            for pair in list(self._pairs):
                self._cut(pair)

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self._target))
            except OSError:
                continue
            pair = client, server
            with self._lock:
                self._pairs.append(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pass, args=(source, sink, pair), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if pair not in self._frozen:
                    sink.sendall(data)
        with self._lock:
            self._cut(pair)

    def _cut(self, pair: tuple[socket.socket, socket.socket]) -> None:
        if pair not in self._pairs:
            return
        self._pairs.remove(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def proxy(port: int, seed: int) -> Iterator[Proxy]:
    """A proxy for as long as the block runs."""
    opened = Proxy(port, seed)
    try:
        yield opened
    finally:
        opened.close()
