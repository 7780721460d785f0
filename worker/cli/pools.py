"""The worker pools as child processes: started, watched and stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from worker.errors import ConfigurationError
from worker.ground.logs import get_logger
from worker.operations.actors import load_actors
from worker.settings import Settings
from worker.settings.environment import of_children

logger = get_logger(__name__)

CPU_QUEUE = "cpu"
NETWORK_THREADS = 8
AFTER_GRACE = 15.0
"""Seconds after grace and clean-up that workers get to store the ends of their attempts."""


def end_in_order_when_told() -> None:
    """Turns SIGTERM into an orderly exit, so that `with` blocks end; by default, workers would outlive this process."""

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


@dataclass(frozen=True, slots=True)
class Pool:
    """Worker processes for some queues.

    Attributes:
        is_nice: Whether other processes get the processor first.
    """

    name: str
    queues: Sequence[str]
    threads: int
    is_nice: bool = False

    def command(self, modules: Sequence[str], stop_timeout: float) -> list[str]:
        """The `dramatiq` command of the pool; at its end it waits `stop_timeout` seconds for its threads."""
        words = [sys.executable, "-m", "dramatiq", *modules, "--queues", *self.queues]
        words += ["--processes", "1", "--threads", str(self.threads)]
        words += ["--worker-shutdown-timeout", str(round(stop_timeout * 1000))]
        # Computing work can wait; a page, an answer and the other queues should not.
        return ["nice", *words] if self.is_nice else words


def stop_timeout(settings: Settings) -> float:
    """Seconds after which workers that were told to end, but still run, are killed."""
    return (settings.grace + settings.cleanup_timeout).total_seconds() + AFTER_GRACE


def pools_for(settings: Settings) -> list[Pool]:
    """A nice pool with a thread per core for actors that compute, and a pool for all other queues.

    Raises:
        ConfigurationError: There are no actors.
    """
    queues = sorted({actor.queue_name for actor in load_actors(settings).values()})
    if not queues:
        raise ConfigurationError(f"WORKER_ACTORS={','.join(settings.actors)}: no actors there")
    others = [queue for queue in queues if queue != CPU_QUEUE]
    found = []
    if CPU_QUEUE in queues:
        found.append(Pool("cpu", [CPU_QUEUE], os.cpu_count() or 1, is_nice=True))
    if others:
        found.append(Pool("network", others, NETWORK_THREADS))
    return found


@dataclass
class RunningPools:
    """The pools' processes, for a `with` block; they stop at its end.

    Attributes:
        modules: The modules with the actors.
        stop_timeout: Seconds after which processes that do not stop are killed.
        log: The file for their output, or None for this process's own output.
    """

    pools: Sequence[Pool]
    modules: Sequence[str]
    stop_timeout: float
    log: Path | None = None
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _log_file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._log_file = self.log.open("ab")
        for pool in self.pools:
            # They must get Ctrl-C once, from us: after a second signal, Dramatiq drops all work.
            self._processes.append(
                subprocess.Popen(
                    pool.command(self.modules, self.stop_timeout),
                    env=of_children(),
                    stdin=subprocess.DEVNULL,
                    stdout=self._log_file,
                    stderr=self._log_file,
                    start_new_session=True,
                )
            )
            logger.info("started workers", pool=pool.name, queues=list(pool.queues), threads=pool.threads)
        return self

    def ended(self) -> int | None:
        """The exit code of the first process that ended by itself, or None while all run."""
        codes = [process.poll() for process in self._processes]
        return next((code for code in codes if code is not None), None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.stop_timeout
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.error("workers did not stop and are killed", pid=process.pid)  # noqa: TRY400 - no traceback
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._log_file is not None:
            self._log_file.close()
