"""The web process: it listens, but refuses an address that would be open to others without a token."""

from __future__ import annotations

import gc
import ipaddress
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.web.app import create_app
from worker.web.connections import BoundedProtocol, Memory, Waiting
from worker.web.door import Door, Visitor

STOP_TIMEOUT = 5
"""Seconds in which requests must end when the process is told to end."""


def check_address(settings: Settings) -> None:
    """Refuses to listen on an address that other machines reach, without a token.

    Raises:
        ConfigurationError: There is no token; the error names the remedy.
    """
    if settings.web_token is None and not is_loopback(settings.web_host):
        raise ConfigurationError(
            f"WORKER_WEB_HOST={settings.web_host}: others could read and act there: set WORKER_WEB_TOKEN, "
            "or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def serve(settings: Settings, listening: Callable[[str], object]) -> None:
    """Serves until the process is told to end.

    Args:
        settings: The settings with the address.
        listening: Called with the URL once it listens.

    Raises:
        ConfigurationError: It may not, or cannot, listen on this address.
    """
    check_address(settings)
    app = create_app(settings)
    # Made now, and kept, because making it blocks all answers.
    app.openapi()
    host = settings.web_host.strip("[]")
    with _bound(host, settings.web_port) as bound:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{bound.getsockname()[1]}/"
        for number in (signal.SIGINT, signal.SIGTERM):
            # After its orderly end, uvicorn raises the signal again for the earlier handler.
            signal.signal(number, _has_ended)

        def is_up() -> None:
            # Nothing that was loaded becomes garbage, and the search for garbage among it would block all answers.
            gc.collect()
            gc.freeze()
            listening(url)

        Server(app, is_up).run(sockets=[bound])


def _has_ended(number: int, frame: FrameType | None) -> None:
    del number, frame


class Server(uvicorn.Server):
    """A uvicorn server that ends promptly, also while browsers follow the live tail.

    Args:
        app: An application of `create_app`.
        listening: Called once it listens.
    """

    def __init__(self, app: FastAPI, listening: Callable[[], object]) -> None:
        super().__init__(
            # Our own logging is set up already.
            uvicorn.Config(
                app,
                # No page asks for one, and its connections would be out of bounds.
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=STOP_TIMEOUT,
            )
        )
        self._app = app
        self._listening = listening
        self._memory = Memory()
        self._waiting = Waiting[BoundedProtocol]()
        self._door: Door

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup([])  # uvicorn itself accepts none
        self._door = Door(sockets or [], self._waiting, self.server_state.connections, self._protocol)
        self._door.open()
        self._listening()

    def _protocol(self, visitor: Visitor) -> BoundedProtocol:
        return BoundedProtocol(
            self._waiting,
            visitor.since,
            visitor.head,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def on_tick(self, counter: int) -> bool:
        """Looks after the connections, ten times a second."""
        self._door.cut_off_late()
        self._memory.look(self._door.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the live tails, then waits for the other requests."""
        await self._door.close()
        self._app.state.resources.stop_following()
        await super().shutdown(sockets)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound to this address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error
    return made
