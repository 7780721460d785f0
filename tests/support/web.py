"""A web process in a thread, and what a browser makes of its live tail."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dramatiq
import httpx
from fastapi import FastAPI

from tests.support.brokers import own_broker
from tests.support.waiting import TIMEOUT, wait_until
from tests.support.workers import working
from worker import NoContentFound, ProcessingStatusContext, actor
from worker.history.filters import MessageFilter
from worker.history.query import ask, count_messages, state_counts
from worker.server.connection import connect
from worker.settings import Settings
from worker.web.server import Server


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


@contextlib.contextmanager
def some_messages(settings: Settings) -> Iterator[dict[str, dramatiq.Actor[..., Any]]]:
    """Messages in every state, each as it came there; the actors by name. The broker is the program's until the end."""
    with own_broker(settings) as broker:
        yield from _some_messages(settings, broker)


def _some_messages(settings: Settings, broker: dramatiq.Broker) -> Iterator[dict[str, dramatiq.Actor[..., Any]]]:
    release = threading.Event()

    @actor(subject=("number",), max_retries=0)
    async def convert(number: int, text: str = "") -> None:
        if text == "skip":
            raise NoContentFound("nothing to do")
        if text == "fail":
            raise ValueError(f"no {number}")

    @actor(queue_name="any")
    def anything(*args: object, **kwargs: object) -> None: ...

    @dramatiq.actor(queue_name="slow")
    def hold(number: int) -> None:
        with ProcessingStatusContext("hold", number=number) as status:
            while not release.wait(0.05):
                status.progress(1, 2, "half")

    for number in range(4):
        convert.send(number, "<script>alert(1)</script>")
    convert.send(4, "skip")
    for number in range(5, 8):
        convert.send(number, "fail")
    hold.send(8)
    for number in range(3):
        anything.send_with_options(args=(number,), delay=3_600_000 * (number + 1))
    client = connect(settings)
    with contextlib.closing(client), working(broker):
        try:
            wait_until(lambda: ask(client, state_counts()) == STATES)
            # A message runs before its first event is stored.
            wait_until(lambda: count_messages(client, MessageFilter(subject={"number": "8"})) == 1)
            yield {"convert": convert, "anything": anything, "hold": hold}
        finally:
            release.set()


STATES = {"completed": 4, "skipped": 1, "dead": 3, "running": 1, "delayed": 3}
"""How many of `some_messages` are in each state."""
