"""The server that every contender uses, its figures, and those of the contenders' processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis

from worker.server.embedded import server_program

POLL = 0.05


class Server:
    """A server of our own on a free port, with its data in this folder."""

    def __init__(self, folder: Path, *, appendonly: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
        self._process = subprocess.Popen(
            [server_program(), *options, "--appendonly", "yes" if appendonly else "no"], stdout=subprocess.DEVNULL
        )
        self.process = psutil.Process(self._process.pid)
        self.client = redis.Redis(port=port)
        for _ in range(100):
            with contextlib.suppress(redis.ConnectionError):
                self.client.ping()
                return
            time.sleep(0.1)
        sys.exit("the server does not answer")

    def stop(self) -> None:
        """Ends the server."""
        self.client.close()
        self._process.terminate()
        self._process.wait()

    def used_memory(self) -> int:
        """Bytes that the server holds, after it has freed dropped data."""
        while (told := self.info("memory"))["lazyfree_pending_objects"]:
            time.sleep(POLL)
        return int(told["used_memory"])

    def commands(self) -> dict[str, int]:
        """The number of calls of each command so far."""
        return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in self.info("commandstats").items()}

    def requests(self) -> int:
        """The number of reads from clients; a pipeline counts once."""
        return int(self.info("stats")["total_reads_processed"])

    def info(self, section: str) -> dict[str, Any]:
        """A section of the server's INFO."""
        return dict(self.client.info(section))


class Usage(NamedTuple):
    """The CPU seconds of each worker process and of the server, up to a moment."""

    at: int
    workers: dict[int, float]
    server: float

    def workers_since(self, earlier: Usage) -> float:
        """CPU seconds of the worker processes since an earlier moment."""
        return sum(cpu - earlier.workers[pid] for pid, cpu in self.workers.items() if pid in earlier.workers)


class Workers:
    """The worker processes of a contender, with all their children."""

    def __init__(self, roots: list[psutil.Process], server: Server) -> None:
        self._roots = roots
        self._server = server

    def all(self) -> list[psutil.Process]:
        """All present processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [process for root in self._roots for process in (root, *root.children(recursive=True))]
        return []

    def ended(self) -> bool:
        """Whether one of the started processes has ended."""
        return not all(root.is_running() and root.status() != psutil.STATUS_ZOMBIE for root in self._roots)

    def megabytes(self, pids: Iterable[int]) -> float:
        """The memory that these processes hold, in MB."""
        total = 0
        for pid in set(pids) - {0}:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_info().rss
        return total / 1e6

    def usage(self) -> Usage:
        """The CPU seconds of the workers and the server so far."""
        workers = {}
        for process in self.all():
            with contextlib.suppress(psutil.NoSuchProcess):
                workers[process.pid] = _cpu(process)
        return Usage(time.monotonic_ns(), workers, _cpu(self._server.process))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
