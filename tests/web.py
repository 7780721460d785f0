"""A web process in a thread, and what a browser makes of its live tail."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from worker.web.server import Server

TIMEOUT = 20.0


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    """Serves the application, and hands out a client of it; all has ended promptly at the end."""
    bound = socket.create_server(("127.0.0.1", 0))
    up = threading.Event()
    server = Server(app, up.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="web")
    thread.start()
    try:
        assert up.wait(TIMEOUT)
        with httpx.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=TIMEOUT) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)
        bound.close()
    assert not thread.is_alive()


@dataclass(frozen=True, slots=True)
class Sent:
    """What a server sent: an event, or a position alone."""

    id: str
    kind: str
    data: Any


@contextlib.contextmanager
def following(web: httpx.Client, last: str | None = None, **parameters: str) -> Iterator[Iterator[Sent]]:
    """What the live tail sends, as a browser reads it; with the last id when it comes back."""
    headers = {} if last is None else {"last-event-id": last}
    with web.stream("GET", "/api/events/live", params=parameters, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _sent(answer.iter_lines(), last or "")


def _sent(lines: Iterator[str], last: str) -> Iterator[Sent]:
    kind, data = "message", ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            last = value
        elif name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not line:
            yield Sent(last, kind if data else "position", json.loads(data) if data else None)
            kind, data = "message", ""
