"""The contenders' processes: those that send, and those that work."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from contenders import Contender
from contenders.stamps import Stamps

from rig.environments import last_line
from rig.server import POLL, Server, Workers

BENCH = Path(__file__).parents[1]
STALLED = 30.0
STOP_TIMEOUT = 30.0


Figures = dict[str, Any]


class Size(NamedTuple):
    """The numbers of messages and rounds, and for how long at most a measurement waits for coroutines."""

    messages: int
    rounds: int
    seconds: float


class Failed(Exception):
    """A contender failed at the measured work."""


class Bench:
    """The server, the folder and the contenders' processes, for all measurements."""

    def __init__(self, folder: Path, server: Server, pythons: dict[str, str]) -> None:
        self.server = server
        self._folder = folder
        self._pythons = pythons
        self._numbers = itertools.count()

    def begin(self, count: int) -> Stamps:
        """Empties the server, and makes the stamps for this many messages."""
        self.server.client.flushall()
        self.server.client.config_resetstat()
        self._stamps = self._folder / f"stamps-{next(self._numbers)}"
        return Stamps.create(self._stamps, count)

    def drive(self, contender: Contender, mode: str) -> Figures:
        """Sends the messages, in a process of its own; returns its figures."""
        done = subprocess.run(
            [self._pythons[contender.name], "-m", "contenders.drive", contender.module, mode],
            env=self._environment(contender, contender.at_once, {}),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"{mode}: {last_line(done.stderr)}")
        figures: Figures = json.loads(last_line(done.stdout))
        return figures

    @contextlib.contextmanager
    def workers(
        self,
        contender: Contender,
        processes: int = 1,
        *,
        at_once: int | None = None,
        quiet: bool = False,
        **more: str,
    ) -> Iterator[Workers]:
        """Starts the contender's worker processes, and stops them at the end.

        Args:
            contender: The contender.
            processes: The number of worker processes.
            at_once: Messages at once in a process; None: as many as it takes of short ones.
            quiet: Throw their log away, because it would be very long.
            more: More environment variables for them.
        """
        log = self._folder / "log"
        at_once = at_once or contender.at_once
        environment = self._environment(contender, at_once, more)
        with Path(os.devnull if quiet else log).open("w") as output:
            started = [
                subprocess.Popen(
                    [self._pythons[contender.name], "-m", *command],
                    env=environment,
                    cwd=self._folder,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                for command in contender.commands(processes, at_once)
            ]
        workers = Workers([psutil.Process(process.pid) for process in started], self.server)
        try:
            yield workers
        except Failed as error:
            said = "" if quiet else last_line(log.read_text(errors="replace"))
            raise Failed(f"{error}; its workers said: {said}" if said else str(error)) from None
        finally:
            _stop(started)

    def _environment(self, contender: Contender, at_once: int, more: dict[str, str]) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
        return ours | {
            "BENCH_REDIS_URL": self.server.url,
            "BENCH_STAMPS": str(self._stamps),
            "PYTHONPATH": str(BENCH),
            "WORKER_DATA_DIR": str(self._folder),
            "WORKER_REDIS_URL": self.server.url,
            **contender.variables(at_once),
            **more,
        }


def _stop(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        process.terminate()
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
        # Each leads a process group of its own, so that no child outlives the measurement.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until_all(count: Callable[[], int], of: int, workers: Workers) -> Iterator[int]:
    """The number of messages that have run, or ended, again and again, until all have.

    Raises:
        Failed: The workers ended before that, or there is no progress.
    """
    before, since = 0, time.monotonic()
    while (now := count()) < of:
        if now > before:
            before, since = now, time.monotonic()
        elif workers.ended() or time.monotonic() - since > STALLED:
            raise Failed(f"{now} of {of} messages ran")
        yield now
        time.sleep(POLL)
