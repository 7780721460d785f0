"""Health, of a real server with and without workers."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest

from tests.support.brokers import stream_broker
from tests.support.waiting import wait_until
from tests.support.web import serving
from tests.support.workers import working
from worker.attempts.running import RunningAttempts
from worker.broker.streams import StreamBroker
from worker.cli.system import worker_row
from worker.history.overview import workers
from worker.history.query import ask
from worker.operations.actions import pause
from worker.operations.health import PROBE_TIMEOUT, Health, HealthState, check_health
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.server.scripts import Script
from worker.settings import Settings
from worker.web import create_app


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker with the usual settings."""
    with stream_broker(settings) as made:
        yield made


@pytest.fixture
def actor(broker: StreamBroker) -> dramatiq.Actor[[], None]:
    """An actor of the queue `default`."""

    @dramatiq.actor
    def nothing() -> None:
        pass

    return nothing


@pytest.fixture
def alive(broker: StreamBroker, actor: dramatiq.Actor[[], None], client: RedisClient) -> Iterator[None]:
    """A worker that is alive."""
    with working(broker, threads=1):
        wait_until(lambda: any(one.alive and one.queues for one in ask(client, workers())))
        yield


def test_a_server_with_a_worker_is_healthy(client: RedisClient, settings: Settings, alive: None) -> None:
    """Whether all hosts are asked or the one."""
    assert check_health(client, settings) == Health(HealthState.HEALTHY, (), 1)
    assert check_health(client, settings, host=socket.gethostname()).state is HealthState.HEALTHY


def test_without_a_worker_it_is_degraded(client: RedisClient, settings: Settings) -> None:
    """Nothing would run; and the check stores nothing."""
    found = check_health(client, settings)
    assert client.dbsize() == 0
    assert (found.state, found.workers) == (HealthState.DEGRADED, 0)
    assert "no worker is alive" in " ".join(found.reasons)


def test_a_worker_that_has_ended_by_itself_is_stopped(
    broker: StreamBroker, actor: object, client: RedisClient, settings: Settings
) -> None:
    """It is neither alive nor dead, does nothing, was heard of as it ended, and makes nobody healthy."""
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    wait_until(lambda: [one.state for one in ask(client, workers())] == ["alive"])
    before = datetime.now(UTC) - timedelta(seconds=1)
    worker.stop()
    (stopped,) = ask(client, workers())
    assert (stopped.state, stopped.alive, stopped.attempts, stopped.threads_busy) == ("stopped", False, (), 0)
    assert stopped.stopped == stopped.heartbeat > before
    assert check_health(client, settings).workers == 0
    assert str(worker_row(stopped)[1]) == "stopped"
    with serving(create_app(settings)) as web:
        for path in ("/workers", "/"):
            page = web.get(path).text
            assert (">stopped<" in page, ">dead<" in page) == (True, False)


def test_a_worker_that_has_stopped_is_forgotten_after_a_while(
    broker: StreamBroker, actor: object, client: RedisClient
) -> None:
    """A quarter of an hour later it is on no list, and nothing is left of it on the server when another ends."""
    ended = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    ended.start()
    wait_until(lambda: len(ask(client, workers())) == 1)
    ended.stop()
    (stopped,) = ask(client, workers())
    client.zincrby("{worker}:stopped", -900_001, stopped.name)
    assert ask(client, workers()) == ()
    assert client.hexists("{worker}:workers", stopped.name)
    client.zadd("{worker}:leases", {"another:1:x": time.time() * 1000 + 60_000})
    Script("leave").run(client, ["another:1:x", 1])
    assert not client.hexists("{worker}:workers", stopped.name)
    assert client.zrange("{worker}:stopped", 0, -1) == [b"another:1:x"]


def test_a_probe_of_a_host_asks_for_its_own_workers(client: RedisClient, settings: Settings, alive: None) -> None:
    """Those of other containers do not make it healthy."""
    found = check_health(client, settings, host="elsewhere")
    assert found.state is HealthState.DEGRADED
    assert "no worker is alive on elsewhere" in " ".join(found.reasons)


def test_a_queue_that_nobody_reads_is_degraded(client: RedisClient, settings: Settings, alive: None) -> None:
    """Unless it is paused on purpose, or nothing waits there."""
    other = StreamBroker(settings, client, lambda: connect(settings), [], RunningAttempts())
    message = dramatiq.Message[None](queue_name="lonely", actor_name="a", args=(), kwargs={}, options={})
    other.enqueue(message)
    found = check_health(client, settings)
    assert found.state is HealthState.DEGRADED
    assert "queue lonely" in " ".join(found.reasons)
    pause(client, "lonely")
    assert check_health(client, settings).state is HealthState.HEALTHY


@pytest.mark.own_server
@pytest.mark.parametrize("how", ["memory", "replica"])
def test_a_server_that_refuses_writes_is_degraded(
    client: RedisClient, settings: Settings, alive: None, how: str
) -> None:
    """Because its memory is full, or because it has become a replica."""
    if how == "memory":
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
    else:
        client.replicaof("127.0.0.1", "1")
    found = check_health(client, settings)
    assert found.state is HealthState.DEGRADED
    assert "the server refuses writes" in " ".join(found.reasons)
    client.config_set("maxmemory", "0")
    client.replicaof("NO", "ONE")
    wait_until(lambda: check_health(client, settings).state is HealthState.HEALTHY)


def test_a_bridge_that_cannot_run_coroutines_is_degraded(
    client: RedisClient, settings: Settings, alive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why."""

    def no_more_loops(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr("worker.operations.health.run_async_in_new_loop", no_more_loops)
    found = check_health(client, settings)
    assert found.state is HealthState.DEGRADED
    assert "too many open files" in " ".join(found.reasons)


def test_a_server_out_of_reach_is_unreachable(settings: Settings) -> None:
    """Its password is not told."""
    away = Settings(data_dir=settings.data_dir, redis_url="redis://me:hunter2@127.0.0.1:1/0")
    found = check_health(connect(away, timeout=PROBE_TIMEOUT), away)
    assert found.state is HealthState.UNREACHABLE
    assert "WORKER_REDIS_URL" in " ".join(found.reasons)
    assert "hunter2" not in " ".join(found.reasons)


@pytest.mark.own_server
def test_a_server_that_has_fallen_silent_is_unreachable_within_seconds(
    settings: Settings, valkey: EmbeddedServer
) -> None:
    """A probe has an end of its own."""
    client = connect(settings, timeout=PROBE_TIMEOUT)
    client.ping()
    pid = int((valkey.folder / "server.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert check_health(client, settings).state is HealthState.UNREACHABLE
        assert time.monotonic() - began < 10 * PROBE_TIMEOUT
    finally:
        os.kill(pid, signal.SIGCONT)
        client.close()
