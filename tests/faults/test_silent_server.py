"""Servers whose answers never end: each call has one bound, with connecting and repeated tries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from tests.support.project import Project
from tests.support.scene import HOST, Server
from tests.support.silence import dripping_server, silent_server
from tests.support.web import serving
from worker.broker import create_broker
from worker.errors import ServerUnreachable
from worker.history.query import ask, state_counts
from worker.operations.health import PROBE_TIMEOUT, HealthState, check_health
from worker.server.connection import aconnect, check_server, connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app

BOUND = 1.0
SLACK = 1.5
"""Seconds beyond the bound for a busy machine; without a bound for the whole, each of these took 15 s or more."""


@pytest.fixture(params=["redis", "rediss"])
def silent(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Settings]:
    """Settings with such a server, over TCP or over TLS, whose handshake never ends."""
    with silent_server() as port:
        yield _settings(settings, f"{request.param}://{HOST}:{port}/0")


def _settings(settings: Settings, url: str, bound: float = BOUND) -> Settings:
    return Settings.model_validate({"data_dir": settings.data_dir, "redis_url": url, "server_timeout": bound})


def message() -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name="default", actor_name="one", args=(), kwargs={}, options={})


@contextlib.contextmanager
def soon(bound: float = BOUND) -> Iterator[None]:
    """The block ends within the bound."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < bound + SLACK


@pytest.mark.clock
def test_a_send_gives_up_within_the_bound(silent: Settings) -> None:
    """The first and the next, whose connections are new ones."""
    broker = create_broker(silent)
    for _ in range(2):
        with soon(), pytest.raises(ServerUnreachable, match="no answer from Redis"):
            broker.enqueue(message())
    broker.close()


@pytest.mark.clock
def test_a_question_gives_up_within_the_bound(silent: Settings) -> None:
    """Of the command line, in the loop of the web, and of several commands in one round trip."""
    with soon(), pytest.raises(ServerUnreachable, match="check WORKER_REDIS_URL"):
        check_server(connect(silent), silent)
    with soon(), pytest.raises(ServerUnreachable):
        ask(connect(silent), state_counts())
    pipeline = connect(silent).pipeline(transaction=False)
    pipeline.get("a")
    with soon(), pytest.raises(redis.RedisError):
        pipeline.execute()

    async def in_a_loop() -> None:
        client = await aconnect(silent)
        with soon(), pytest.raises(redis.TimeoutError):
            await client.get("a")
        pipeline = client.pipeline()
        pipeline.get("a")
        with soon(), pytest.raises(redis.TimeoutError):
            await pipeline.execute()
        await client.aclose()

    asyncio.run(in_a_loop())


@pytest.mark.clock
@pytest.mark.parametrize("every", [0.1, 0.0001], ids=["slowly", "at once"])
def test_a_server_whose_answer_never_ends_is_given_up_within_the_bound(settings: Settings, every: float) -> None:
    """Each piece comes in time, and the whole never: of a send, and of a question."""
    with dripping_server(every) as port:
        endless = _settings(settings, f"redis://{HOST}:{port}/0")
        broker = create_broker(endless)
        with soon(), pytest.raises(ServerUnreachable, match="no answer from Redis"):
            broker.enqueue(message())
        with soon(), pytest.raises(ServerUnreachable):
            check_server(connect(endless), endless)
        broker.close()


@pytest.mark.clock
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_name_that_is_not_found_in_time_is_given_up_within_the_bound(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A resolver may take half a minute; the next call looks again."""
    hangs = threading.Event()
    look_up = socket.getaddrinfo

    def slowly(host: Any, *place: Any) -> Any:
        if host == "server.example":
            hangs.wait()
            host = HOST
        return look_up(host, *place)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    named = _settings(settings, f"{scheme}://server.example:1/0")
    broker = create_broker(named)
    with soon(), pytest.raises(ServerUnreachable, match="no answer from Redis"):
        broker.enqueue(message())
    hangs.set()
    with soon(), pytest.raises(ServerUnreachable, match="refused"):
        check_server(connect(named), named)
    broker.close()


def test_a_server_with_several_addresses_is_reached_at_the_first_that_answers(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a name that has an address of IPv6, on which the server does not listen."""
    server = Server(tmp_path)
    server.start()
    look_up = socket.getaddrinfo

    def both(host: Any, port: Any, *kinds: Any) -> Any:
        if host != "server.example":
            return look_up(host, port, *kinds)
        return [*look_up("127.0.0.77", port, *kinds), *look_up(HOST, port, *kinds)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    named = _settings(settings, f"redis://server.example:{server.port}/0")
    try:
        check_server(connect(named), named)
    finally:
        server.kill()


@pytest.mark.clock
def test_a_look_at_the_health_takes_three_seconds_at_most(silent: Settings) -> None:
    """Whatever the bound of other calls is."""
    patient = silent.model_copy(update={"server_timeout": Settings.model_fields["server_timeout"].default})
    assert PROBE_TIMEOUT == 3
    with soon(PROBE_TIMEOUT):
        assert check_health(connect(patient), patient).state is HealthState.UNREACHABLE


@pytest.mark.clock
def test_tls_on_a_plain_port_is_told_within_the_bound(tmp_path: Path, settings: Settings) -> None:
    """The server waits for the rest of a command, and the client for a handshake."""
    server = Server(tmp_path)
    server.start()
    try:
        wrong = _settings(settings, f"rediss://{HOST}:{server.port}/0")
        broker = create_broker(wrong)
        with soon(), pytest.raises(ServerUnreachable):
            broker.enqueue(message())
        broker.close()
    finally:
        server.kill()


@pytest.mark.clock
def test_a_server_that_falls_silent_is_given_up_within_the_bound(tmp_path: Path, settings: Settings) -> None:
    """Over connections that were good before; when it goes on, so do they who ask."""
    server = Server(tmp_path)
    server.start()
    own = _settings(settings, f"redis://{HOST}:{server.port}/0")
    broker, client = create_broker(own), connect(own)
    try:
        broker.enqueue(message())
        check_server(client, own)
        server.signal(signal.SIGSTOP)
        with soon(), pytest.raises(ServerUnreachable):
            broker.enqueue(message())
        with soon(), pytest.raises(ServerUnreachable):
            check_server(client, own)
        with soon(PROBE_TIMEOUT):
            assert check_health(client, own).state is HealthState.UNREACHABLE
        server.signal(signal.SIGCONT)
        broker.enqueue(message())
        check_server(client, own)
    finally:
        broker.close()
        client.close()
        server.kill()


@pytest.mark.clock
def test_the_web_answers_that_there_is_no_answer(silent: Settings) -> None:
    """Its API, its pages, its probes: none waits longer than the bound of its question."""
    with serving(create_app(silent)) as web:
        for path in ("/api/messages", "/api/events/live", "/"):
            with soon():
                assert web.get(path, follow_redirects=True).status_code == 503, path
        with soon(PROBE_TIMEOUT):
            assert "unreachable" in web.get("/api/health").text
        with soon(0.1):
            assert web.get("/health/live").status_code == 200


@pytest.mark.clock
def test_the_commands_say_within_the_bound_that_there_is_no_answer(tmp_path: Path) -> None:
    """In one line, with the remedy; `worker health` exits with 2."""
    project = Project(tmp_path, WORKER_SERVER_TIMEOUT="1s")
    with silent_server() as port:
        variables = {"WORKER_REDIS_URL": f"redis://{HOST}:{port}/0"}
        for words, code in ((("status",), 1), (("events",), 1), (("health",), 1)):
            began = time.monotonic()
            done = project.worker(*words, code=code, variables=variables)
            # Python itself starts in a second or two.
            assert time.monotonic() - began < 10
            said = (done.stdout + done.stderr).splitlines()
            assert "no answer from Redis" in said[-1]
            assert "check WORKER_REDIS_URL" in said[-1]
    project.down()


@pytest.mark.clock
@pytest.mark.own_server
def test_nobody_ends_an_embedded_server_that_is_slow(settings: Settings, valkey: EmbeddedServer) -> None:
    """It is told with its process and the remedy; when it goes on, nothing of it is lost."""
    slow = settings.model_copy(update={"server_timeout": Settings(server_timeout=BOUND).server_timeout})
    connect(slow).set("kept", "yes")
    pid = int((valkey.folder / "server.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(4):
            with soon(), pytest.raises(ServerUnreachable, match=f"process {pid}.*does not answer.*worker down"):
                check_server(connect(slow), slow)
        with soon(PROBE_TIMEOUT):
            found = check_health(connect(settings), settings)
        assert found.state is HealthState.UNREACHABLE
        assert "worker down" in " ".join(found.reasons)
    finally:
        os.kill(pid, signal.SIGCONT)
    client = connect(slow)
    assert client.get("kept") == b"yes"
    assert client.info("server")["process_id"] == pid


def test_a_caller_who_waits_at_the_server_has_the_time_that_it_asked_for(
    settings: Settings, valkey: EmbeddedServer
) -> None:
    """As whoever waits for a result of Dramatiq's: the bound is for the server, and begins with its delay."""
    quick = settings.model_copy(update={"server_timeout": timedelta(seconds=1)})
    assert connect(quick).brpoplpush("nothing", "nothing", 2) is None
