"""A cluster of three shards, each with a replica: six real servers, on ports of their own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.support.scene import HOST, Server, free_port
from tests.support.waiting import TIMEOUT, wait_until
from worker.server.embedded import server_program

SLOTS = 16384
SHARDS = 3
NODE_TIMEOUT_MS = 800


class Node(Server):
    """A node of a cluster."""

    def start(self) -> None:
        options = {"port": self.port, "bind": HOST, "dir": self.folder, "save": "", "appendonly": "yes"}
        options |= {"cluster-enabled": "yes", "cluster-port": free_port(), "cluster-node-timeout": NODE_TIMEOUT_MS}
        options |= {"cluster-replica-validity-factor": "0", "repl-diskless-sync-delay": "0"}
        options |= {"cluster-allow-replica-migration": "no", "logfile": self.folder / "server.log"}
        arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([server_program(), *arguments], stdin=subprocess.DEVNULL)
        self.bus = int(str(options["cluster-port"]))
        wait_until(self._answers)

    def cluster(self, *words: str | int) -> Any:
        return self.client.execute_command("CLUSTER", *words)

    @property
    def id(self) -> str:
        return str(self.cluster("MYID").decode())

    @property
    def is_primary(self) -> bool:
        return bool(self.client.info("replication")["role"] == "master")

    def owner_of(self, slot: int) -> int | None:
        """The port of the primary that has a slot, as this node knows it."""
        with redis.Redis(host=HOST, port=self.port, single_connection_client=True) as client:
            connection: Any = client.connection
            connection.send_command("CLUSTER", "SLOTS")
            for first, last, primary, *_ in connection.read_response():
                if first <= slot <= last:
                    return int(primary[1])
        return None

    def refusals(self, code: str) -> int:
        """How often this node has refused with that code."""
        found: Any = self.client.info("errorstats")
        return int(found.get(f"errorstat_{code}", {}).get("count", 0))

    def says(self, what: str) -> bool:
        """Whether CLUSTER INFO says so."""
        return what.encode() in self.cluster("INFO")


class Cluster:
    """The nodes: first the primaries of the shards in order, then a replica of each."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.killed: list[Node] = []

    @property
    def url(self) -> str:
        """The URL, with one node of each shard."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes[:SHARDS])

    @property
    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node not in self.killed]

    def owner(self, slot: int) -> Node:
        """The primary that has a slot, when all nodes agree on it."""
        found: list[int | None] = []

        def agree() -> bool:
            found[:] = [node.owner_of(slot) for node in self.alive]
            return len(set(found)) == 1 and found[0] in {node.port for node in self.alive}

        wait_until(agree)
        return next(node for node in self.alive if node.port == found[0])

    def other(self, slot: int) -> Node:
        """A primary that does not have the slot."""
        owner = self.owner(slot)
        return next(node for node in self.alive if node is not owner and node.is_primary)

    def kill(self, node: Node) -> None:
        self.killed.append(node)
        node.kill()

    def begin_move(self, slot: int, target: Node) -> Node:
        """Begins to move a slot key by key; the node from which it moves."""
        source = self.owner(slot)
        target.cluster("SETSLOT", slot, "IMPORTING", source.id)
        source.cluster("SETSLOT", slot, "MIGRATING", target.id)
        return source

    def move_keys(self, slot: int, source: Node, target: Node, most: int | None = None) -> int:
        """Moves keys of the slot, a few at a time, at most so many; how many it has moved."""
        moved = 0
        while most is None or moved < most:
            keys = source.cluster("GETKEYSINSLOT", slot, 10 if most is None else min(10, most - moved))
            if not keys:
                break
            source.client.execute_command("MIGRATE", HOST, target.port, "", 0, int(TIMEOUT * 1000), "KEYS", *keys)
            moved += len(keys)
        return moved

    def end_move(self, slot: int, source: Node, target: Node) -> None:
        """Gives the slot to the target, which has all keys by now."""
        for node in (target, source):
            node.cluster("SETSLOT", slot, "NODE", target.id)

    def move(self, slot: int, target: Node) -> None:
        """Moves a slot key by key, from begin to end, as `redis-cli --cluster reshard` does."""
        source = self.begin_move(slot, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, source, target)

    def move_at_once(self, slot: int, target: Node) -> None:
        """Moves a slot with all its keys in one step, as Valkey 9 does."""
        self.owner(slot).cluster("MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        wait_until(lambda: self.owner(slot) is target)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that is up, for as long as the block runs."""
    nodes: list[Node] = []
    try:
        for number in range(2 * SHARDS):
            own = folder / f"node-{number}"
            own.mkdir()
            nodes.append(Node(own))
            nodes[-1].start()
        share = SLOTS // SHARDS + 1
        for number, node in enumerate(nodes[:SHARDS]):
            node.cluster("SET-CONFIG-EPOCH", number + 1)
            node.cluster("ADDSLOTSRANGE", number * share, min(SLOTS, (number + 1) * share) - 1)
        for node in nodes[1:]:
            nodes[0].cluster("MEET", HOST, node.port, node.bus)
        wait_until(lambda: all(node.says(f"cluster_known_nodes:{len(nodes)}") for node in nodes))
        for primary, replica in zip(nodes[:SHARDS], nodes[SHARDS:], strict=True):
            wait_until(lambda primary=primary, replica=replica: _follows(replica, primary))  # type: ignore[misc]
        wait_until(lambda: all(node.says("cluster_state:ok") for node in nodes))
        wait_until(
            lambda: all(node.client.info("replication").get("master_link_status") == "up" for node in nodes[SHARDS:])
        )
        yield Cluster(nodes)
    finally:
        for node in nodes:
            node.kill()


def _follows(replica: Node, primary: Node) -> bool:
    try:
        replica.cluster("REPLICATE", primary.id)
    except redis.ResponseError:
        return False  # it does not know the primary yet
    return True
