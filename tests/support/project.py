"""A project of its own for an end-to-end test: its data, its environment, and the commands that are run in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import dramatiq
import psutil

from tests.conftest import forget_environment
from tests.support.waiting import TIMEOUT, wait_until
from worker.attempts.running import RunningAttempts
from worker.broker.streams import StreamBroker
from worker.history.events import State, StatusEvent
from worker.history.filters import EventFilter, MessageFilter
from worker.history.query import all_messages, ask, read_events, state_counts
from worker.history.states import FAILURES, WAITS
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WORKER = str(BIN / "worker")
NOTHING: Mapping[str, str] = MappingProxyType({})


class Piped(NamedTuple):
    """A command whose output is read while it runs."""

    process: subprocess.Popen[str]
    out: IO[str]
    err: IO[str]


class Project:
    """An empty project in `folder`; `variables` are added to the environment of what runs in it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir(parents=True)
        quick = {"WORKER_MIN_BACKOFF": "10ms", "WORKER_MAX_BACKOFF": "50ms"}
        path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
        own = {"WORKER_DATA_DIR": str(self.data_dir), "PATH": path, "WORKER_WEB_PORT": "0"} | quick | variables
        self.environment = forget_environment(dict(os.environ)) | own
        self.settings = Settings(data_dir=self.data_dir)
        self.client: RedisClient = connect(self.settings)

    def run(
        self, *words: str, cwd: Path | None = None, code: int | None = 0, variables: Mapping[str, str] = NOTHING
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, and sees that it exits with `code`, if that is not None."""
        done = subprocess.run(
            words,
            cwd=cwd or self.elsewhere,
            env=self.environment | dict(variables),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert code in (None, done.returncode), f"{words} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def worker(
        self, *words: str, cwd: Path | None = None, code: int = 0, variables: Mapping[str, str] = NOTHING
    ) -> subprocess.CompletedProcess[str]:
        """Runs `worker …`."""
        return self.run(WORKER, *words, cwd=cwd, code=code, variables=variables)

    def json(self, *words: str, **options: Any) -> Any:
        """What `worker … --json` prints on its last line."""
        return json.loads(self.worker(*words, "--json", **options).stdout.splitlines()[-1])

    def enqueue(self, actor: str, *arguments: str, **options: Any) -> str:
        """Enqueues from the command line; the message's id."""
        return str(self.json("enqueue", actor, *arguments, **options)["message_id"])

    def events(self, message_id: str) -> list[StatusEvent]:
        """The message's events, without those of progress."""
        found = read_events(self.client, EventFilter(message_id=message_id), 1_000)
        return [event for event in found if event.state is not State.PROGRESS]

    def ended(self, message_id: str) -> list[StatusEvent]:
        """The message's events, once it will have no more of them."""

        def has_ended() -> bool:
            events = self.events(message_id)
            return bool(events) and events[-1].state.is_final and events[-1].state not in (*FAILURES, *WAITS)

        wait_until(has_ended)
        wait_until(lambda: not self.waiting())
        return self.events(message_id)

    def send(self, actor: str, *args: object, queue: str = "default") -> str:
        """Enqueues a message as another program does, which does not have the actor; its id."""
        broker = StreamBroker(self.settings, self.client, lambda: connect(self.settings), [], RunningAttempts())
        message: dramatiq.Message[Any] = dramatiq.Message(
            queue_name=queue, actor_name=actor, args=args, kwargs={}, options={}
        )
        return str(broker.enqueue(message).message_id)

    def waiting(self) -> int:
        """How many messages are queued, delayed or not acknowledged."""
        states = ask(self.client, state_counts())
        return sum(states.get(state, 0) for state in ("queued", "delayed", "running"))

    def dead_letters(self) -> list[str]:
        """The ids of the dead letters."""
        return [message.id for message in all_messages(self.client, MessageFilter(states=("dead",)))]

    @contextlib.contextmanager
    def background(self, *words: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Runs a command in a session of its own until the block ends, and kills whatever then still runs."""
        with (self.folder / f"{Path(words[0]).name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                cwd=cwd or self.elsewhere,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(TIMEOUT)

    @contextlib.contextmanager
    def piped(self, *words: str) -> Iterator[Piped]:
        """Runs `worker …`, which the block reads; it waits for its end, but not after an error."""
        with subprocess.Popen(
            [WORKER, *words],
            cwd=self.elsewhere,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                yield Piped(process, process.stdout, process.stderr)
            except BaseException:
                process.kill()
                raise

    def served(self, number: int = 0, *, begun_by: str = "env") -> str:
        """The address of the so manyeth `worker web --json` that this command has begun, once it is served."""

        def urls() -> list[str]:
            log = self.folder / f"{begun_by}.log"
            lines = log.read_text().splitlines() if log.exists() else []
            return [json.loads(line)["url"] for line in lines if line.startswith("{") and '"url": "http' in line]

        wait_until(lambda: len(urls()) > number)
        return urls()[number]

    def processes(self) -> dict[int, str]:
        """The processes that run with this project's data, but for its server: their ids and command lines."""
        found = {}
        for process in psutil.process_iter():
            # Some end meanwhile, and some are not ours to look at.
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                ours = process.environ().get("WORKER_DATA_DIR") == str(self.data_dir)
                if ours and command and "valkey" not in command and "redis-server" not in command:
                    found[process.pid] = command
        return found

    def down(self) -> None:
        """Stops the server, at the end of a test."""
        self.client.close()
        EmbeddedServer(self.settings).stop()


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """One Ctrl-C, as a terminal sends it: to the whole group; the exit code."""
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(TIMEOUT)
