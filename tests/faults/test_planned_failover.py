"""A planned failover: the address points to the new primary, and the demoted one goes on answering."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from tests.support.proxy import Proxy, proxy
from tests.support.scene import HOST, Server, scene
from tests.support.waiting import wait_until
from tests.support.web import serving
from worker.broker import create_broker
from worker.broker.named_leases import lease
from worker.history.query import aask, ask, state_counts
from worker.operations.actions import pause, resume
from worker.server import wires
from worker.server.connection import aconnect, connect
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.web import create_app


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers, and the address of the primary."""

    old: Server
    new: Server
    address: Proxy

    def fail_over(self) -> None:
        """Makes the other server the primary once it has everything; connections to the old one stay."""
        self.new.client.replicaof("NO", "ONE")
        self.address.point_at(self.new.port)
        self.old.client.replicaof(HOST, str(self.new.port))
        wait_until(lambda: role(self.old) == "slave" and role(self.new) == "master")


def role(server: Server) -> str:
    return str(server.client.info("replication")["role"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    servers = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        servers.append(Server(tmp_path / name))
        servers[-1].start()
    old, new = servers
    old.client.config_set("repl-diskless-sync-delay", "0")
    new.client.replicaof(HOST, str(old.port))
    wait_until(lambda: new.client.info("replication").get("master_link_status") == "up")
    with proxy(old.port, 1) as address:
        yield Pair(old, new, address)
    for one in servers:
        one.kill()


@pytest.fixture
def own(pair: Pair, settings: Settings) -> Iterator[Settings]:
    """Settings in force with that address."""
    made = Settings.model_validate(
        {"data_dir": settings.data_dir, "redis_url": f"redis://{HOST}:{pair.address.port}/0"}
    )
    put_in_force(made)
    yield made
    put_in_force(None)


def message() -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name="default", actor_name="one", args=(), kwargs={}, options={})


def test_senders_and_actions_go_on_at_the_new_primary(pair: Pair, own: Settings) -> None:
    """Not one send fails, though the old server still answers over the connections that there are."""
    broker, client = create_broker(own), connect(own)
    broker.enqueue(message())
    assert pause(client, "default")
    wait_until(lambda: pair.new.client.exists("{worker}:paused"))
    pair.fail_over()
    for _ in range(20):
        broker.enqueue(message())
    assert resume(client, "default")
    assert ask(pair.new.connect(timeout=5), state_counts()) == {"queued": 21}
    broker.close()
    client.close()


def test_leases_go_on_at_the_new_primary(pair: Pair, own: Settings) -> None:
    """One that is taken after the failover, over a connection from before."""
    with lease("before"):
        pair.fail_over()
    with lease("after"):
        assert pair.new.client.exists("{worker}:lease:after")


def test_questions_leave_a_server_that_only_answers_them(
    pair: Pair, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demoted server would answer with old data for ever: connections ask every now and then what it is."""
    monkeypatch.setattr(wires, "LOOK_EVERY", 0.05)
    client = connect(own)
    assert ask(client, state_counts()) == {}

    async def in_a_loop() -> None:
        aclient = await aconnect(own)
        assert await aask(aclient, state_counts()) == {}
        pair.fail_over()
        pair.old.client.replicaof(HOST, "1")  # it hears no news
        broker = create_broker(own)
        await asyncio.to_thread(broker.enqueue, message())
        broker.close()
        await asyncio.sleep(0.1)
        assert await aask(aclient, state_counts()) == {"queued": 1}
        await aclient.aclose()

    asyncio.run(in_a_loop())
    assert ask(client, state_counts()) == {"queued": 1}
    client.close()


def test_the_web_shows_the_new_primary(pair: Pair, own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages, its API and its live tail."""
    monkeypatch.setattr(wires, "LOOK_EVERY", 0.05)
    with serving(create_app(own)) as web:
        assert web.get("/api/states").json()["states"]["queued"] == 0
        pair.fail_over()
        pair.old.client.replicaof(HOST, "1")
        broker = create_broker(own)
        broker.enqueue(message())
        broker.close()
        wait_until(lambda: web.get("/api/states").json()["states"]["queued"] == 1)


def test_workers_go_on_at_the_new_primary(tmp_path: Path) -> None:
    """What is sent after the failover runs, and nothing is lost."""
    (tmp_path / "new").mkdir()
    with scene(tmp_path, WORKER_LEASE="2s") as opened, proxy(opened.server.port, 1) as address:
        new = Server(tmp_path / "new")
        new.start()
        try:
            opened.client.config_set("repl-diskless-sync-delay", "0")
            new.client.replicaof(HOST, str(opened.server.port))
            wait_until(lambda: new.client.info("replication").get("master_link_status") == "up")
            opened.go_through(address.port)
            opened.start_ready("a")
            before = opened.send_many("work", [[]] * 20)
            opened.wait_for_end(20)
            Pair(opened.server, new, address).fail_over()
            after = opened.send_many("work", [[]] * 20)
            everything = {*before, *after}
            wait_until(lambda: {run.message_id for run in opened.ledger("done")} == everything, explain=opened.explain)
        finally:
            new.kill()
