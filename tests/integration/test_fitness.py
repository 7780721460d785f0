"""A server on which messages would be lost takes none: it is refused at the first send and at a worker's start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
import structlog.testing

from tests.support.project import Project
from tests.support.scene import HOST, free_port
from tests.support.waiting import wait_until
from worker.broker import create_broker, sending
from worker.errors import ServerRefused
from worker.history.overview import queues
from worker.history.query import ask, delayed_messages, state_counts
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer, server_program
from worker.settings import Settings


def message() -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name="default", actor_name="one", args=(), kwargs={}, options={})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The URL of a cluster of one shard, which would take messages."""
    port = free_port()
    bus = free_port()  # else ten thousand above the port, where there may be none
    options = ["--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(bus)]
    options += ["--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen([server_program(), *options], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        with redis.Redis(host=HOST, port=port) as client:
            wait_until(lambda: _answers(client))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            wait_until(lambda: _is_up(client))
            client.set("is", "up")
            yield f"redis://{HOST}:{port}/0"
    finally:
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _is_up(client: redis.Redis) -> bool:
    found: Any = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    return b"cluster_state:ok" in found


def test_a_node_of_a_cluster_is_refused_where_the_url_names_no_cluster(tmp_path: Path, cluster: str) -> None:
    """At the first send and at a worker's start, with the remedy in one line; nothing is stored on it."""
    own = Settings.model_validate({"data_dir": tmp_path, "redis_url": cluster})
    broker = create_broker(own)
    for _ in range(2):
        with pytest.raises(ServerRefused, match=r"a node of a cluster.*: write redis\+cluster://"):
            broker.enqueue(message())
    project = Project(tmp_path / "project", WORKER_REDIS_URL=cluster)
    for words in (("up",), ("enqueue", "merge_conversation", "1")):
        said = project.worker(*words, code=1).stderr.splitlines()[-1]
        assert "write redis+cluster://" in said
    broker.close()
    with redis.Redis.from_url(cluster) as client:
        assert client.keys("*") == [b"is"]


@pytest.mark.own_server
def test_a_server_that_evicts_is_refused_until_it_is_mended(settings: Settings, client: RedisClient) -> None:
    """Each send asks again until the answer is good, and then none does any more."""
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    broker = create_broker(settings)
    for _ in range(2):
        with pytest.raises(ServerRefused, match="allkeys-lru.*: set `maxmemory-policy noeviction`"):
            broker.enqueue(message())
    assert ask(client, state_counts()) == {}
    client.config_set("maxmemory-policy", "noeviction")
    for _ in range(3):
        broker.enqueue(message())
    calls: Any = client.info("commandstats")
    assert ask(client, state_counts()) == {"queued": 3}
    assert calls["cmdstat_info"]["calls"] <= 4
    broker.close()


@pytest.mark.own_server
def test_a_server_that_begins_to_evict_is_refused_by_those_who_sent_before(
    settings: Settings, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender asks again after a while, and after each loss of its connection: another server may have the address."""
    broker = create_broker(settings)
    broker.enqueue(message())
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    broker.enqueue(message())
    client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(ServerRefused, match="allkeys-lru"):
        broker.enqueue(message())
    client.config_set("maxmemory-policy", "noeviction")
    monkeypatch.setattr(sending, "FIT_FOR", 0)
    broker.enqueue(message())
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(ServerRefused, match="allkeys-lru"):
        broker.enqueue(message())
    broker.close()


@pytest.mark.own_server
def test_a_policy_that_drops_only_what_expires_is_told_and_not_refused(settings: Settings, client: RedisClient) -> None:
    """Messages are safe on it, unique keys and leases are not."""
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "volatile-lru")
    broker = create_broker(settings)
    with structlog.testing.capture_logs() as logged:
        broker.enqueue(message())
        broker.enqueue(message())
    assert [one["found"] for one in logged if "found" in one] == [
        "unique keys and leases may be dropped when its memory is full (maxmemory-policy volatile-lru)"
    ]
    broker.close()


@pytest.mark.own_server
def test_a_worker_takes_nothing_from_a_server_that_evicts(
    settings: Settings, client: RedisClient, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why, and begins when the server is mended."""
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lfu")
    broker = create_broker(settings)
    monkeypatch.setattr("dramatiq.broker.global_broker", broker)

    @dramatiq.actor(broker=broker)
    def idle() -> None: ...

    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    with structlog.testing.capture_logs() as logged:
        worker.start()
        wait_until(lambda: any("maxmemory-policy noeviction" in str(one.get("error")) for one in logged))
    client.config_set("maxmemory-policy", "noeviction")
    message_id = idle.send().message_id
    wait_until(lambda: ask(client, state_counts()) == {"completed": 1})
    assert message_id
    worker.stop()
    broker.close()


def test_messages_that_are_gone_from_the_server_are_told_and_counted_no_more(
    settings: Settings, client: RedisClient
) -> None:
    """Evicted or deleted by hand, waiting or delayed; those that are there stay and run."""
    broker = create_broker(settings.model_copy(update={"lease": timedelta(seconds=1)}))
    ran: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="read")
    def note(name: str) -> None:
        ran.append(name)

    waiting = [broker.enqueue(message()) for _ in range(4)]
    delayed = broker.enqueue(message(), delay=60_000)
    kept = broker.enqueue(message(), delay=60_000)
    for one in (*waiting[:3], delayed):
        client.delete("{worker}:m:" + one.message_id)
    assert ask(client, state_counts()) == {"queued": 4, "delayed": 2}
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    with structlog.testing.capture_logs() as logged:
        worker.start()
        wait_until(lambda: ask(client, state_counts()) == {"queued": 1, "delayed": 1})
        wait_until(lambda: any("gone from the server" in one["event"] for one in logged))
    (told,) = [one for one in logged if "gone from the server" in one["event"]]
    assert sorted(told["ids"]) == sorted(one.message_id for one in (*waiting[:3], delayed))
    note.send("later")
    wait_until(lambda: ran == ["later"])
    assert [(one.name, one.queued, one.delayed) for one in ask(client, queues()) if one.name == "default"] == [
        ("default", 1, 1)
    ]
    assert [one.id for one in ask(client, delayed_messages())] == [kept.message_id]
    assert client.zcard("{worker}:due") == 1
    worker.stop()
    broker.close()
