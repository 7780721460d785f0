"""A namespace on a cluster: its shard's primary is killed, its slot moves under load; each message is accounted for."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from pydantic import SecretStr

from tests.support.account import settle
from tests.support.clusters import Cluster, cluster
from tests.support.load import Load
from tests.support.project import ROOT, Project
from tests.support.scene import HOST, Scene, Server, scene
from tests.support.waiting import wait_until
from tests.support.web import serving
from worker.broker import create_broker
from worker.broker.named_leases import lease
from worker.errors import ServerRefused
from worker.operations.doctor import examine
from worker.operations.health import check_health
from worker.server.cluster import NodeOfSlot
from worker.server.connection import check_server, connect
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.web import create_app


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "nodes").mkdir()
    with cluster(tmp_path / "nodes") as made:
        yield made


@pytest.fixture
def own(nodes: Cluster, tmp_path: Path) -> Iterator[Settings]:
    """Settings in force with that cluster."""
    made = Settings.model_validate({"data_dir": tmp_path, "redis_url": nodes.url, "server_timeout": "2s"})
    put_in_force(made)
    yield made
    put_in_force(None)


@pytest.fixture
def slot(own: Settings) -> int:
    """The slot of the namespace."""
    primary = connect(own).primary
    assert isinstance(primary, NodeOfSlot)
    return primary.slot


@pytest.fixture
def opened(nodes: Cluster, slot: int, tmp_path: Path) -> Iterator[Scene]:
    """A scene on the cluster; its own server serves nobody."""
    with scene(tmp_path, WORKER_LEASE="2s") as made:
        made.go_to(nodes.url)
        made.client = nodes.owner(slot).client
        yield made


def message() -> dramatiq.Message[object]:
    return dramatiq.Message(queue_name="default", actor_name="one", args=(), kwargs={}, options={})


def under_load(opened: Scene) -> Load:
    """Two workers, and a sender that has sent something."""
    opened.start_ready("a")
    opened.start_ready("b")
    load = Load(opened, 0.005)
    goes_on(load)
    return load


def goes_on(load: Load, messages: int = 50) -> None:
    sent = len(load.sent)
    wait_until(lambda: len(load.sent) > sent + messages)


def test_a_slot_that_moves_under_load_loses_nothing(opened: Scene, nodes: Cluster, slot: int) -> None:
    """Key by key or at once: all wait until the move is over, and the history of each message is whole."""
    load = under_load(opened)
    source, target = nodes.owner(slot), nodes.other(slot)
    nodes.begin_move(slot, target)
    nodes.move_keys(slot, source, target, most=50)
    wait_until(lambda: source.refusals("ASK") > 20)
    nodes.move_keys(slot, source, target)
    nodes.end_move(slot, source, target)
    goes_on(load)
    nodes.move_at_once(slot, source)
    goes_on(load)
    opened.client = source.client
    sent = load.end()
    opened.wait_for_end(len(sent))
    assert settle(opened, sent) == load.expected


def test_a_primary_of_a_shard_that_is_killed_under_load_takes_only_its_last_moment_with_it(
    opened: Scene, nodes: Cluster, slot: int
) -> None:
    """Replication is asynchronous: what was acknowledged in the last moment may be lost; all else runs."""
    load = under_load(opened)
    safe = set(load.sent)
    goes_on(load)
    nodes.kill(nodes.owner(slot))
    opened.client = nodes.owner(slot).client
    goes_on(load)
    everything = load.end()
    lost = {one for one in everything if not opened.client.exists(f"{{worker}}:m:{one}")}
    assert lost.isdisjoint(safe)
    assert len(lost) < 50
    kept = [one for one in everything if one not in lost]
    opened.wait_for_end(len(kept))
    settle(opened, kept)


def test_nothing_is_written_while_the_slot_moves(own: Settings, nodes: Cluster, slot: int) -> None:
    """A send waits within its bound, then raises, and has stored nothing; sent again, it waits for the end of it."""
    broker = create_broker(own)
    for _ in range(30):
        broker.enqueue(message())
    target = nodes.other(slot)
    source = nodes.begin_move(slot, target)
    nodes.move_keys(slot, source, target, most=20)
    one = message()
    with pytest.raises(ServerRefused, match="ASK.*moves the namespace's slot.*: try again"):
        broker.enqueue(one)
    for node in (source, target):
        assert f"{{worker}}:m:{one.message_id}".encode() not in node.cluster("GETKEYSINSLOT", slot, 1000)
    ended = threading.Event()

    def end() -> None:
        ended.wait(0.3)
        nodes.move_keys(slot, source, target)
        nodes.end_move(slot, source, target)

    thread = threading.Thread(target=end)
    thread.start()
    broker.enqueue(one)
    thread.join()
    assert target.client.hget("{worker}:states", "queued") == b"31"
    broker.close()


def test_the_web_the_commands_and_leases_follow_the_slot(
    own: Settings, opened: Scene, nodes: Cluster, slot: int, tmp_path: Path
) -> None:
    """After the slot has moved, and after its new primary was killed; doctor and status tell where it is."""
    project = Project(tmp_path / "project", WORKER_REDIS_URL=nodes.url)
    with serving(create_app(own)) as web, lease("before"):
        for is_kill in (False, True):
            if is_kill:
                nodes.kill(nodes.owner(slot))
            else:
                nodes.move(slot, nodes.other(slot))
            owner = nodes.owner(slot)
            opened.client = owner.client
            opened.send_surely("work")
            wait_until(lambda: web.get("/api/states").json()["states"]["queued"] == opened.states()["queued"] > 0)
            with lease(f"after {is_kill}"):
                assert owner.client.exists(f"{{worker}}:lease:after {is_kill}")
            place = f"{nodes.url} (primary {HOST}:{owner.port})"
            said = " ".join(project.worker("doctor", "--json", code=1).stdout.split())  # no worker is alive
            assert place in said
            assert f"slot {slot}" in said
            assert place in " ".join(project.worker("status", "--json").stdout.split())


def test_a_namespace_whose_node_the_url_does_not_name_is_found(own: Settings, nodes: Cluster, slot: int) -> None:
    """Any one node leads to it, a replica too; and those that were learnt lead to it when that one is gone."""
    stranger = next(node for node in nodes.nodes if not node.is_primary)
    url = f"redis+cluster://{HOST}:{stranger.port}"
    broker = create_broker(own.model_copy(update={"redis_url": SecretStr(url)}))
    broker.enqueue(message())
    nodes.kill(stranger)
    nodes.move(slot, nodes.other(slot))
    broker.enqueue(message())
    assert nodes.owner(slot).client.hget("{worker}:states", "queued") == b"2"
    broker.close()


def test_each_program_needs_only_one_right_more(own: Settings, nodes: Cluster, slot: int) -> None:
    """`+cluster|slots` beside those that it needs on a server of its own; its password is that of all nodes."""
    users = re.findall(r"^user (\w+) (.*)$", (ROOT / "docs" / "reference" / "rights.md").read_text(), re.MULTILINE)
    for node in nodes.nodes:
        for name, rights in users:
            node.client.execute_command("ACL", "SETUSER", name, *rights.split(), "+cluster|slots")
        node.client.execute_command("ACL", "SETUSER", "default", "resetpass", ">other")
        node.client.execute_command("ACL", "LOG", "RESET")

    def settings_of(user: str) -> Settings:
        url = nodes.url.replace("://", f"://{user}:password@")
        return Settings.model_validate({"data_dir": own.data_dir, "redis_url": url, "lease": "1s"})

    producer, worker = create_broker(settings_of("producer")), create_broker(settings_of("worker"))
    ran: list[str] = []

    @dramatiq.actor(broker=worker, queue_name="default")
    def one() -> None:
        ran.append("one")

    producer.enqueue(message())
    running = dramatiq.Worker(worker, worker_threads=1, worker_timeout=50)
    running.start()
    wait_until(lambda: ran == ["one"])
    for user in ("operator", "web"):
        client = connect(settings_of(user))
        assert check_health(client, settings_of(user)).workers == 1
        if user == "operator":
            assert [found.name for found in examine(client, settings_of(user)) if found.severity == "problem"] == []
        client.close()
    running.stop()
    for broker in (producer, worker):
        broker.close()
    log: Any = [one for node in nodes.nodes for one in node.client.acl_log()]
    # redis-py asks managed servers for their plans, and does without; the doctor asks for the snapshots.
    assert [one for one in log if not {"maint", "config"} & set(re.findall("maint|config", str(one).lower()))] == []


def test_a_server_that_is_no_cluster_says_so(tmp_path: Path) -> None:
    """In one line, at once, with what to write."""
    (tmp_path / "alone").mkdir()
    alone = Server(tmp_path / "alone")
    alone.start()
    made = Settings.model_validate({"data_dir": tmp_path, "redis_url": f"redis+cluster://{HOST}:{alone.port}"})
    try:
        with pytest.raises(
            ServerRefused, match="cluster support disabled.*: write redis:// in place of redis.cluster://"
        ):
            check_server(connect(made), made)
    finally:
        alone.kill()
