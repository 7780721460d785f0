"""What strangers can hold of a web process: half-sent requests, idle connections, answers that they do not read."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import SecretStr
from starlette.routing import BaseRoute
from structlog.testing import capture_logs

from tests.support.waiting import TIMEOUT, wait_until
from tests.support.web import serving
from worker.history.events import State, StatusEvent
from worker.history.writer import EventWriter
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import api, connections, create_app, door, live, pages, probes, sessions
from worker.web.connections import BoundedProtocol, Waiting
from worker.web.door import Visitor

MANY = 1_000
TOKEN = "full-of-many-secrets"
WITHIN = 0.05
"""Seconds in which the probe must be answered, whatever others hold."""


@pytest.fixture
def web(settings: Settings, valkey: EmbeddedServer) -> Iterator[httpx.Client]:
    """A web process in a thread; this process may open files enough for both ends of each connection.

    As in `worker web`, what the first answer needs is made, and what is loaded is kept from the search for garbage.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(8_192, before[1])), before[1]))
    with serving(create_app(settings)) as client:
        assert client.get("/health/live").status_code == 200
        gc.freeze()
        yield client
    gc.unfreeze()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def connected(web: httpx.Client, number: int, sent: bytes, buffer: int | None = None) -> Iterator[list[socket.socket]]:
    """So many connections, each of which has sent this."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(number):
            one = stack.enter_context(socket.socket())
            if buffer is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            one.connect((web.base_url.host, web.base_url.port))
            with contextlib.suppress(ConnectionError):  # it may have been cut off to make room
                one.sendall(sent)
            made.append(one)
        yield made


class Held:
    """The connections of which the process keeps something: as a visitor at the door, or as a protocol."""

    def __init__(self) -> None:
        self._visitors: list[weakref.ref[Visitor]] = []
        self._protocols: list[weakref.ref[BoundedProtocol]] = []

    def welcome(self, one: Visitor) -> None:
        self._visitors.append(weakref.ref(one))

    def add(self, one: BoundedProtocol) -> None:
        self._protocols.append(weakref.ref(one))

    @property
    def seen(self) -> int:
        """How many there ever were."""
        return len(self._visitors)

    def __call__(self) -> int:
        in_use = [one for made in self._protocols if (one := made()) is not None and not one.transport.is_closing()]
        return len(in_use) + sum(made() is not None for made in self._visitors)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    known, made, came = Held(), BoundedProtocol.connection_made, Visitor.__init__

    def connection_made(one: BoundedProtocol, transport: asyncio.Transport) -> None:
        made(one, transport)
        known.add(one)

    def visitor(one: Visitor, *arguments: Any) -> None:
        came(one, *arguments)
        known.welcome(one)

    monkeypatch.setattr(BoundedProtocol, "connection_made", connection_made)
    monkeypatch.setattr(Visitor, "__init__", visitor)
    return known


def slowest(web: httpx.Client) -> float:
    """How long a probe with a connection of its own takes, but for two in twenty: a kept one may just be cut off."""
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert web.get("/health/live", headers={"Connection": "close"}).status_code == 200
        took.append(time.monotonic() - began)
    return sorted(took)[-3]


def _single(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """The routes themselves, also those of routers within."""
    for one in routes:
        if isinstance(one, APIRoute):
            yield one
        else:
            yield from _single(one.original_router.routes)  # type: ignore[attr-defined]


HALF_SENT = {
    "idle": b"",
    "line": b"GET /health/l",
    "headers": b"GET /api/states HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * 8_000,
    "body": b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\ntoken=" + b"x" * 8_000,
}


@pytest.mark.clock
@pytest.mark.parametrize("sent", HALF_SENT.values(), ids=HALF_SENT)
def test_a_thousand_connections_that_wait_are_bounded(
    web: httpx.Client, held: Held, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """None waits to be accepted, the oldest make room, the probe is answered, and in the end nothing is kept of any."""
    began = time.monotonic()
    with connected(web, MANY, sent):
        assert time.monotonic() - began < 1  # after which the system would try a dropped connection again
        wait_until(lambda: held.seen >= MANY and held() <= connections.MOST)
        assert slowest(web) < WITHIN
        assert held() > connections.MOST // 2
    wait_until(lambda: held() <= 1)
    monkeypatch.setattr(connections, "REQUEST_WITHIN", 0.3)
    with connected(web, connections.MOST // 2, sent):
        wait_until(lambda: held() <= 1)
        assert slowest(web) < WITHIN


def test_a_probe_comes_in_where_all_places_are_taken(
    web: httpx.Client, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By visitors that nobody may cut off; also if its request comes a moment after its connection."""
    monkeypatch.setattr(door, "MOST", 1)
    tail = b"GET /api/events/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with contextlib.ExitStack() as stack:

        def comes(sent: bytes) -> socket.socket:
            [one] = stack.enter_context(connected(web, 1, sent))
            one.settimeout(TIMEOUT)
            return one

        assert comes(tail).recv(12)[-3:] == b"200"
        late = comes(b"")
        wait_until(lambda: held.seen == 2)
        late.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert late.recv(12)[-3:] == b"200"
        assert comes(tail).recv(12)[-3:] == b"200"  # the probe has made room
        assert closed(comes(tail))


def closed(one: socket.socket) -> bool:
    """Whether nothing comes any more."""
    with contextlib.suppress(ConnectionError):
        return one.recv(12) == b""
    return True


def test_a_visitor_is_read_before_it_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has sent a probe's request, but the loop saw first that a further visitor came."""
    monkeypatch.setattr(door, "MOST", 1)

    async def comes_in() -> bytes:
        came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def protocol(one: Visitor) -> Any:
            came.set_result(one.head)
            return asyncio.Protocol()

        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as first, socket.socket() as other:
            entrance = door.Door([listening], Waiting[BoundedProtocol](), [], protocol)
            entrance.open()
            first.connect(listening.getsockname())
            for _ in range(2):
                await asyncio.sleep(0)  # a turn of the loop
            assert entrance.connections == 1
            other.connect(listening.getsockname())
            first.sendall(b"GET /health/live HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(TIMEOUT):
                head = await came
            await entrance.close()
            return head

    assert asyncio.run(comes_in()).startswith(b"GET /health/live")


def test_a_probe_does_not_wait_for_all_the_requests_that_came_before_it(web: httpx.Client) -> None:
    """Of many at once one begins in each turn, so that it is answered among the first."""
    request = b"GET /api/states HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connected(web, 200, b"") as made:
        assert web.get("/health/live").status_code == 200  # all are accepted, and the client is connected
        for one in made:
            one.sendall(request)
        assert web.get("/health/live").status_code == 200
        answered = select.poll()
        for one in made:
            answered.register(one, select.POLLIN)
        assert len(answered.poll(0)) < len(made) / 2
        for one in made:
            assert one.recv(12)[-3:] == b"200"


def test_what_was_loaded_is_not_searched_for_garbage(settings: Settings, valkey: EmbeddedServer) -> None:
    """Such a search blocked all answers for a tenth of a second, whenever many connections had gone."""
    asked = """
import gc, os, signal
from worker.settings import Settings
from worker.web.server import serve

def listening(url):
    print(len(gc.get_objects()) * 10 < gc.get_freeze_count())
    os.kill(os.getpid(), signal.SIGTERM)

serve(Settings.in_force(), listening)
"""
    environment = os.environ | {"WORKER_DATA_DIR": str(settings.data_dir), "WORKER_WEB_PORT": "0"}
    answer = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout == "True\n"


def test_no_handler_needs_a_thread_before_it_begins(settings: Settings) -> None:
    """What a handler depends on are coroutines: threads of many requests would keep the loop from running."""

    def functions_of(needed: Dependant) -> Iterator[object]:
        yield needed.call
        for one in needed.dependencies:
            yield from functions_of(one)

    routes = [*api.router.routes, *probes.router.routes, *probes.guarded.routes, *pages.router.routes]
    routes += sessions.router.routes
    found = {one for route in _single(routes) for one in functions_of(route.dependant)}
    assert len(found) > 30
    assert [one for one in found if not inspect.iscoroutinefunction(one)] == []


def test_a_request_that_comes_byte_by_byte_is_cut_off(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is no reason to wait for longer; the next request of a connection has all the time again."""
    monkeypatch.setattr(connections, "REQUEST_WITHIN", 0.5)
    request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
    pause = threading.Event()
    with connected(web, 1, b"") as [slow]:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for sent in range(500):
                slow.sendall(request[sent : sent + 1] or b"x")
                pause.wait(0.02)
        assert time.monotonic() - began < 5
    with connected(web, 1, b"") as [steady]:
        for _ in range(4):
            pause.wait(0.2)
            steady.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += steady.recv(65_536)
            assert b" 200 " in answer


def test_what_is_no_request_is_refused_at_once(web: httpx.Client) -> None:
    """TLS on the plain port, and a head without an end, are told so; nobody waits for the time to run out."""
    for sent, status in ((b"\x16\x03\x01\x02\x00", b"400"), (b"GET /" + b"x" * 100_000, b"400")):
        with connected(web, 1, sent) as [one]:
            one.settimeout(TIMEOUT)
            assert one.recv(12)[-3:] == status


def test_a_head_that_comes_in_parts_is_answered_as_a_whole(web: httpx.Client) -> None:
    """Also where the parts end within the blank line, and where the next request follows without a pause."""
    head = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    pause = threading.Event()
    for parts in (head[:3], head[:-3], head[:-2], head[:-1]):
        with connected(web, 1, parts) as [one]:
            pause.wait(0.02)  # it has been read
            one.sendall(head[len(parts) :] + head)
            one.settimeout(TIMEOUT)
            answer = b""
            while answer.count(b" 200 ") < 2:
                answer += one.recv(65_536)


def test_without_open_files_it_waits_for_some(web: httpx.Client) -> None:
    """The log says what to raise; a connection that came meanwhile is answered later."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with capture_logs() as logs, socket.socket() as one:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
        try:
            one.connect((web.base_url.host, web.base_url.port))
            wait_until(lambda: logs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        assert [(entry["event"], "ulimit -n" in entry["remedy"]) for entry in logs] == [
            ("no connection can be accepted", True)
        ]
        one.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        one.settimeout(TIMEOUT)
        assert one.recv(12)[-3:] == b"200"


def test_a_request_whose_sender_leaves_is_no_error(
    settings: Settings, valkey: EmbeddedServer, held: Held, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for its answer; the log says nothing."""
    guarded = settings.model_copy(update={"web_token": SecretStr(TOKEN)})
    with serving(create_app(guarded)) as web:
        for _ in range(3):
            with connected(web, 1, HALF_SENT["body"]):
                wait_until(lambda: held() > 0)
        wait_until(lambda: held() == 0)
        assert web.get("/health/live").status_code == 200
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.clock
def test_live_tails_that_nobody_reads_are_bounded(
    web: httpx.Client, held: Held, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five hundred, those above the bound are told so; the others end when they do not read on."""
    monkeypatch.setattr(connections, "READ_WITHIN", 0.5)
    tail = b"GET /api/events/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connected(web, 500, tail, buffer=4_096) as made:
        status = [one.recv(12)[-3:] for one in made[-5:]]
        assert status == [b"503"] * 5
        assert slowest(web) < WITHIN
        answer = web.get("/api/events/live")
        assert (answer.status_code, "close some" in answer.json()["detail"]) == (503, True)
        writer = EventWriter(lambda: connect(settings), settings)
        while held() > 1:
            for _ in range(200):
                writer.record(StatusEvent(event="x.started", state=State.STARTED, text="x" * 2_000, actor="x"))
            assert writer.flush(10)
            assert slowest(web) < 10 * WITHIN  # of a test that writes as fast as it can
        writer.close(5)
        assert slowest(web) < WITHIN
    assert live.MOST_FOLLOWERS < connections.MOST
    with connected(web, 1, tail) as [one]:
        assert one.recv(12)[-3:] == b"200"
