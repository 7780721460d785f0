"""A primary with replicas, and three sentinels that watch it: real processes, on ports of their own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.support.scene import HOST, Server, free_port
from tests.support.waiting import wait_until
from worker.server.embedded import server_program

NAME = "mymaster"
DOWN_AFTER_MS = 600


class Sentinel:
    """A sentinel."""

    def __init__(self, folder: Path, primary: int, *lines: str, password: str | None = None) -> None:
        self.port = free_port()
        self._file = folder / f"sentinel-{self.port}.conf"
        config = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {folder}",
            f"sentinel monitor {NAME} {HOST} {primary} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 5000",
            *lines,
        ]
        self._file.write_text("\n".join(config) + "\n")
        self.client = redis.Redis(host=HOST, port=self.port, password=password, decode_responses=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [server_program(), str(self._file), "--sentinel"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(self._answers)
        # As often as the processes of a test need it, not those of a data centre.
        hurry = ("info-period", "publish-period", "ask-period", "ping-period")
        self.ask("DEBUG", *(word for name in hurry for word in (name, "100")))

    def ask(self, *words: str) -> Any:
        return self.client.execute_command("SENTINEL", *words)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.client.close()

    def primary(self) -> int:
        """The port of the primary."""
        return int(self.ask("GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def knows(self, replicas: int, sentinels: int) -> bool:
        found: Any = self.ask("MASTER", NAME)
        state = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        return (int(state["num-slaves"]), int(state["num-other-sentinels"])) == (replicas, sentinels - 1)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


class Watched:
    """Servers, of which one is the primary, and the sentinels that watch them."""

    def __init__(self, servers: Sequence[Server], sentinels: Sequence[Sentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        places = ",".join(f"{HOST}:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{places}/{NAME}"

    def primary(self) -> Server:
        port = self.sentinels[-1].primary()
        return next(one for one in self.servers if one.port == port)

    def fail_over(self) -> Server:
        """Has the sentinels make a replica the primary, with nothing lost; waits for it."""
        before = self.primary()
        wait_until(lambda: self._begins(before))
        return self.wait_for_another(before)

    def wait_for_another(self, before: Server) -> Server:
        """Waits until another server is the primary, and all sentinels know it."""

        def has_changed() -> bool:
            found = {one.primary() for one in self.sentinels}
            return len(found) == 1 and before.port not in found

        wait_until(has_changed)
        return self.primary()

    def _begins(self, before: Server) -> bool:
        try:
            self.sentinels[0].ask("FAILOVER", NAME, "COORDINATED")
        except redis.ResponseError:
            # It has one under way, or no replica that is ready for it.
            return self.primary() is not before
        return True


@contextlib.contextmanager
def watched(folder: Path, primary: Server, replicas: int = 1) -> Iterator[Watched]:
    """Gives a server that runs replicas and sentinels, for as long as the block runs."""
    servers: list[Server] = [primary]
    sentinels: list[Sentinel] = []
    try:
        primary.client.config_set("repl-diskless-sync-delay", "0")
        for number in range(replicas):
            own = folder / f"replica-{number}"
            own.mkdir()
            servers.append(Server(own))
            servers[-1].start()
            servers[-1].client.config_set("repl-diskless-sync-delay", "0")
            servers[-1].client.replicaof(HOST, str(primary.port))
        for one in servers[1:]:
            wait_until(lambda one=one: one.client.info("replication").get("master_link_status") == "up")  # type: ignore[misc]
        for _ in range(3):
            sentinels.append(Sentinel(folder, primary.port))
            sentinels[-1].start()
        wait_until(lambda: all(one.knows(replicas, len(sentinels)) for one in sentinels))
        yield Watched(servers, sentinels)
    finally:
        for sentinel in sentinels:
            sentinel.kill()
        for one in servers[1:]:
            one.kill()
