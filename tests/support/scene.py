"""A server, worker processes and a sender, each of which a test can kill, suspend or cut off."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dramatiq
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import forget_environment
from tests.support.project import BIN, NOTHING, ROOT
from tests.support.runners import RUNNERS, named
from tests.support.waiting import TIMEOUT, wait_until
from worker.broker import create_broker
from worker.broker.streams import StreamBroker
from worker.broker.terms import Terms
from worker.errors import ServerUnreachable
from worker.server.client import RedisClient
from worker.server.embedded import server_program
from worker.server.keys import LOOP, Namespace
from worker.settings import Settings
from worker.settings.groups import put_in_force

HOST = "127.0.0.1"


class Server:
    """Valkey on a port of its own, with an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.client = self.connect(timeout=30)

    def connect(self, *, timeout: float) -> RedisClient:
        """A client that tries nothing twice."""
        retry = Retry(NoBackoff(), 0)
        return RedisClient(Namespace("worker"), host=HOST, port=self.port, socket_timeout=timeout, retry=retry)

    def start(self) -> None:
        options = {"port": self.port, "bind": HOST, "dir": self.folder, "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "always", "logfile": self.folder / "server.log"}
        arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([server_program(), *arguments], stdin=subprocess.DEVNULL)
        wait_until(self._answers)

    def kill(self) -> None:
        """Ends it as a power failure of its machine would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.client.connection_pool.disconnect()

    def shut_down(self) -> None:
        """Ends it by its own command."""
        assert self._process is not None
        # It answers nothing, and so the client believes that it has lost it.
        with contextlib.suppress(redis.RedisError):
            self.client.shutdown(nosave=True)
        self._process.wait(TIMEOUT)
        self.client.connection_pool.disconnect()

    def signal(self, number: signal.Signals) -> None:
        """Suspends it, or has it go on: its connections stay, and nothing comes over them."""
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


class Run(NamedTuple):
    """A line of the ledger."""

    what: str
    message_id: str
    attempt: int
    fence: int
    worker: str
    at: float


@dataclass
class WorkerCommand:
    """A `dramatiq` command with one worker process."""

    name: str
    process: subprocess.Popen[bytes]
    folder: Path

    def signal(self, number: signal.Signals) -> None:
        """To the command and its worker process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kills both at once, as `kill -9` does."""
        self.signal(signal.SIGKILL)
        self.process.wait(TIMEOUT)

    def terminate(self) -> None:
        """Asks it to end, as systemd and Kubernetes do."""
        self.process.send_signal(signal.SIGTERM)

    def tells(self) -> dict[str, Any]:
        """How its worker process fares; empty before it has begun."""
        try:
            told: dict[str, Any] = json.loads((self.folder / f"probe-{self.name}").read_text())
        except FileNotFoundError:
            return {}
        return told

    def is_ready(self) -> bool:
        told = self.tells()
        return bool(told) and told["health"]["lease_held"] and not told["health"]["errors"]


class Scene:
    """All that takes part.

    Args:
        folder: Where the server, the ledger and the logs are.
        runner: The runner of the actors to which messages are sent.
        variables: Settings of the workers.
    """

    def __init__(self, folder: Path, runner: str = LOOP, **variables: str) -> None:
        self.folder = folder
        self.runner = runner
        self.server = Server(folder)
        self.server.start()
        self.client = self.server.client
        self.workers: dict[str, WorkerCommand] = {}
        self.sent_again: set[str] = set()
        quick = {"WORKER_MIN_BACKOFF": "10ms", "WORKER_MAX_BACKOFF": "100ms", "WORKER_LOG_LEVEL": "info"}
        own = {"FAULTS_FOLDER": str(folder), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self._environment = forget_environment(dict(os.environ)) | quick | variables | own
        self.url = f"redis://{HOST}:{self.server.port}/0"
        self.broker = self._sender()

    def go_through(self, port: int) -> None:
        """Workers that are started from now on reach the server at that port, and so does the sender."""
        self.go_to(f"redis://{HOST}:{port}/0")

    def go_to(self, url: str) -> None:
        """Workers that are started from now on reach the server under that URL, and so does the sender."""
        self.url = url
        self.broker.close()
        self.broker = self._sender()

    def _sender(self) -> StreamBroker:
        broker = create_broker(Settings.model_validate({"redis_url": self.url, "data_dir": self.folder}))
        assert isinstance(broker, StreamBroker)
        return broker

    # ------------------------------------------------------------------ workers

    def start(
        self, name: str, *options: str, threads: int = 4, variables: Mapping[str, str] = NOTHING
    ) -> WorkerCommand:
        """Starts a worker, and does not wait for it."""
        words = [str(BIN / "dramatiq"), "tests.support.actors", "--processes", "1", "--threads", str(threads), *options]
        # As many attempts of async actors at once as of sync ones.
        own = {"WORKER_REDIS_URL": self.url, "FAULTS_NAME": name, "WORKER_CONCURRENCY": str(threads)}
        environment = self._environment | own | dict(variables)
        (self.folder / f"probe-{name}").unlink(missing_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers[name] = WorkerCommand(name, process, self.folder)
        return self.workers[name]

    def start_ready(
        self, name: str, *options: str, threads: int = 4, variables: Mapping[str, str] = NOTHING
    ) -> WorkerCommand:
        """Starts a worker, and waits until it takes messages."""
        worker = self.start(name, *options, threads=threads, variables=variables)
        wait_until(worker.is_ready, explain=self.explain)
        return worker

    def log(self, name: str) -> str:
        """What the worker of that name has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # ------------------------------------------------------------------ messages

    def message(
        self, actor: str, *args: object, queue: str = "default", runner: str | None = None
    ) -> dramatiq.Message[Any]:
        """A message for the scene's runner, or for that one."""
        name = named(actor, runner or self.runner)
        return dramatiq.Message(queue_name=queue, actor_name=name, args=args, kwargs={}, options={})

    def on_both(self, actor: str, *args: object) -> list[dramatiq.Message[Any]]:
        """The same message for each runner."""
        return [self.message(actor, *args, runner=runner) for runner in RUNNERS]

    def send(
        self,
        actor: str,
        *args: object,
        queue: str = "default",
        delay: int | None = None,
        runner: str | None = None,
    ) -> str:
        """Sends a message; its id."""
        message = self.message(actor, *args, queue=queue, runner=runner)
        return self.broker.enqueue(message, delay=delay).message_id

    def send_many(self, actor: str, arguments: Iterable[Sequence[object]], *, delay: int | None = None) -> list[str]:
        """Sends messages, one for each list of arguments; their ids."""
        messages = [self.message(actor, *args) for args in arguments]
        return [message.message_id for message in self.broker.enqueue_many(messages, Terms(delay_ms=delay))]

    def send_to_both(self, actor: str, arguments: Iterable[Sequence[object]]) -> list[str]:
        """Sends messages to both runners in turn, two for each list of arguments; their ids."""
        messages = [one for args in arguments for one in self.on_both(actor, *args)]
        return [message.message_id for message in self.broker.enqueue_many(messages)]

    def send_surely(self, actor: str, *args: object, delay: int | None = None, runner: str | None = None) -> str:
        """Sends a message again and again, under the same id, until the server has it."""
        message = self.message(actor, *args, runner=runner)
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return self.broker.enqueue(message, delay=delay).message_id
            except ServerUnreachable:
                assert time.monotonic() < deadline, "the server stays away"
                self.sent_again.add(message.message_id)
                time.sleep(0.05)

    # ------------------------------------------------------------------ what can be seen

    def ledger(self, what: str = "") -> list[Run]:
        """What the actors have noted, oldest first."""
        try:
            lines = (self.folder / "ledger").read_text().splitlines()
        except FileNotFoundError:
            return []
        runs = [line.split() for line in lines]
        found = [Run(run[0], run[1], int(run[2]), int(run[3]), run[4], float(run[5])) for run in runs]
        return [run for run in found if what in ("", run.what)]

    def states(self) -> Counter[str]:
        """How many messages are in each state, as the server counts them."""
        found: Any = self.client.hgetall("{worker}:states")
        return Counter({state.decode(): int(number) for state, number in found.items() if int(number)})

    def ended(self) -> int:
        """How many messages have ended."""
        states = self.states()
        return sum(states[state] for state in ("completed", "skipped", "dead", "cancelled"))

    def pending(self) -> int:
        """How many entries are taken by workers and not acknowledged."""
        found = 0
        for stream in self.client.scan_iter("{worker}:q:*", _type="stream"):
            for group in self.client.xinfo_groups(stream):
                found += int(group["pending"])
        return found

    def wait_for_end(self, messages: int, timeout: float = TIMEOUT) -> None:
        """Waits until so many messages have ended, and nothing runs."""
        wait_until(lambda: self.ended() >= messages and not self.pending(), timeout, self.explain)

    def explain(self) -> str:
        """Where things stand, for the message of a failed wait."""
        lines = [f"states {dict(self.states())}, pending {self.pending()}"]
        for name, worker in self.workers.items():
            last = "\n".join(line[:300] for line in self.log(name).splitlines()[-8:])
            lines.append(f"{name}: exit {worker.process.poll()}, {worker.tells()}\n{last}")
        return "\n".join(lines)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        self.broker.close()
        self.client.close()
        self.server.kill()


@contextlib.contextmanager
def scene(folder: Path, runner: str = LOOP, **variables: str) -> Iterator[Scene]:
    """A scene that ends with the block, whatever happens in it."""
    opened = Scene(folder, runner, **variables)
    try:
        yield opened
    finally:
        opened.close()
        put_in_force(None)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
