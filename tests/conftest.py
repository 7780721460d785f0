"""What tests of every kind share: settings, a server, a client of it, and how many examples Hypothesis tries."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import dramatiq.broker
import hypothesis
import pytest
import redis

from tests.support.examples import CHECK, TEST
from tests.support.reports import unicode_only
from worker.broker import named_leases
from worker.history import writer
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.settings.groups import put_in_force

SET_BY_DEVELOPERS = ("WORKER_", "THREAD_POOL_SIZE", "XDG_RUNTIME_DIR", "OPENAI_")

# How long an example takes says something about the machine, and nothing about the code.
hypothesis.settings.register_profile(TEST, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile(CHECK, hypothesis.settings.get_profile(TEST), max_examples=25)
hypothesis.settings.load_profile(TEST)


def forget_environment(environment: dict[str, str]) -> dict[str, str]:
    """The same environment without what a developer may have set for this project."""
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    terminals = {"FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES"}
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(SET_BY_DEVELOPERS) and name.upper() not in proxies | terminals
    }


def pytest_configure() -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored, also in the commands that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """A test that fails with odd text is a failure of that test, also where tests run side by side."""
    return unicode_only((yield))


@pytest.fixture(autouse=True)
def broker_of_the_process_put_back() -> Iterator[None]:
    """The broker that a test makes the process's is gone after it, with its actors."""
    before = dramatiq.broker.global_broker
    yield
    dramatiq.broker.global_broker = before


@pytest.fixture(autouse=True)
def leases_of_the_process_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of leases that a test's settings have made is gone after it."""
    monkeypatch.setattr(named_leases, "_default", None)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that a developer may have set reaches the test."""
    for name in os.environ.keys() - forget_environment(dict(os.environ)).keys():
        monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[Settings]:
    """Settings in force with data of their own; no `.env` is found."""
    monkeypatch.chdir(tmp_path)
    own = Settings(data_dir=tmp_path / "data")
    put_in_force(own)
    yield own
    put_in_force(None)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The server that the tests of this process use one after another."""
    server = EmbeddedServer(Settings(redis_url=None, runtime_dir=None, data_dir=tmp_path_factory.mktemp("shared")))
    server.ensure_running()
    yield server
    server.stop()


@pytest.fixture
def valkey(settings: Settings, request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A running, empty server for these settings: the shared one, or with the mark `own_server` one of its own."""
    server = EmbeddedServer(settings)
    if request.node.get_closest_marker("own_server"):
        server.ensure_running()
        yield server
        server.stop()
        return
    shared: EmbeddedServer = request.getfixturevalue("shared_server")
    server.folder.mkdir(parents=True)
    # Whoever looks for the server of these settings, also in another process, finds the shared one running.
    (server.folder / "socket").write_text(str(shared.socket))
    with redis.Redis(unix_socket_path=str(shared.socket)) as client:
        # Whoever still talks to it belongs to a test that has ended.
        client.client_kill_filter(_type="normal", skipme=True)
        client.flushall()
        before = client.config_get()
        yield server
        assert client.config_get() == before, "a test that configures its server needs the mark `own_server`"


@pytest.fixture
def client(settings: Settings, valkey: EmbeddedServer) -> Iterator[RedisClient]:
    """A client of that server."""
    opened = connect(settings)
    yield opened
    opened.close()


@pytest.fixture
def own_writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process's writer of events is made anew, for the settings of the test."""
    monkeypatch.setattr(writer, "_default", None)
    yield
    writer.default_writer().close(writer.EXIT_TIMEOUT)
