"""The pool of connections to the embedded server, which it starts."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import redis

from worker.ground.logs import get_logger
from worker.server.embedded import EmbeddedServer
from worker.server.wires import UnixWire
from worker.settings import Settings

logger = get_logger(__name__)


class EmbeddedPool(redis.ConnectionPool):
    """Connections to the embedded server of these settings.

    Args:
        settings: The settings that name its folder.
        options: The options of each connection.
    """

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        super().__init__(connection_class=UnixWire, path="", **options)
        self._server = EmbeddedServer(settings)
        self._started = False

    def reset(self) -> None:
        """Resets the pool in a forked child; its parent may have held the locks, for which it would wait."""
        self._lock = threading.RLock()
        self._starting = threading.Lock()
        super().reset()

    def start_server(self) -> None:
        """Starts the server before the first connection, unless it runs.

        Raises:
            ConfigurationError: There is no server program, or no place for its files.
            ServerUnreachable: The server did not start, or runs and does not answer.
        """
        if self._started:
            return
        self._checkpid()
        with self._starting:
            if not self._started:
                self.connection_kwargs["path"] = str(self._server.ensure_running())
                self._started = True
                announce(self._server.folder)

    def make_connection(self) -> Any:  # noqa: ANN401 - redis-py's own type
        """A new connection; who takes one without a command, as a monitor does, finds the server started too."""
        self.start_server()
        return super().make_connection()


_announced: set[tuple[int, Path]] = set()


def announce(folder: Path) -> None:
    """Logs the use of the embedded server: one line in each process, for any number of clients."""
    if (os.getpid(), folder) not in _announced:
        _announced.add((os.getpid(), folder))
        logger.info("using the embedded Valkey", data=str(folder))
