"""Measures our broker beside others: throughput, enqueueing, latency, idleness, memory; all in the same run.

    python bench/broker.py [--rounds 3] [--messages 20000] [--only NAME …] [--part PART …] [--appendonly] [--json FILE]

Everything is measured from outside. A private server is started, and emptied before each measurement; contenders take
turns. Each no-op only writes the time and its process into a file that all processes share (`contenders/stamps.py`).
- throughput: all messages are enqueued first, then the workers start. The rate counts the time in which all processes
  work: from the moment the last one began to the moment the first one ended. CPU is that of the workers and of the
  server, in microseconds per message; bytes are those that the server still holds for each message at the end.
- enqueue: messages per second, one after the other, from one thread; and together, if the contender can do that.
- latency: from `send` to the first line of the actor, on an idle worker, at random intervals of 50 to 500 ms.
- idle: the load of a process with three queues and no messages, on the server and the CPU. Requests are those that it
  sends; commands include those that its scripts call.
- memory: that of one process of ours over ten times as many messages; every tenth fails with a long traceback.

The extra `bench-broker` installs the contenders. arq and SAQ refuse the version of redis-py that the others use: give
an interpreter that has them with `--second-python`. Missing contenders are left out, and named.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import math
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

try:
    import psutil
except ModuleNotFoundError as error:
    print(f"{error.name} is missing: pip install 'dramatiq-bridge[bench-broker]'", file=sys.stderr)
    sys.exit(2)
import redis
from contenders import AS_SHIPPED, CONTENDERS, OURS, OURS_FAILING, Contender
from contenders.stamps import Stamps

from worker.server.embedded import server_program


class Size(NamedTuple):
    """The numbers of messages and rounds."""

    messages: int
    rounds: int


Figures = dict[str, Any]
Found = dict[str, dict[str, list[Figures]]]

PARTS = ("throughput", "enqueue", "latency", "idle", "memory")
PROCESSES = (1, 2)
LATENCY_MESSAGES = 200
IDLE_SECONDS = 10.0
MORE_QUEUES = ("second", "third")
MEMORY_TIMES = 10
MEMORY_POINTS = 10

STALLED = 30.0
STOP_TIMEOUT = 30.0
POLL = 0.05
SETTLE = 0.25
QUIET = 3.0


class Failed(Exception):
    """A contender failed at the measured work."""


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
            env=self._environment(contender, {}),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"{mode}: {_last_line(done.stderr)}")
        figures: Figures = json.loads(_last_line(done.stdout))
        return figures

    @contextlib.contextmanager
    def workers(
        self, contender: Contender, processes: int = 1, *, quiet: bool = False, **more: str
    ) -> Iterator[Workers]:
        """Starts the contender's worker processes, and stops them at the end.

        Args:
            contender: The contender.
            processes: The number of worker processes.
            quiet: Throw their log away, because it would be very long.
            more: More environment variables for them.
        """
        log = self._folder / "log"
        environment = self._environment(contender, more)
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
                for command in contender.commands(processes)
            ]
        workers = Workers([psutil.Process(process.pid) for process in started], self.server)
        try:
            yield workers
        except Failed as error:
            said = "" if quiet else _last_line(log.read_text(errors="replace"))
            raise Failed(f"{error}; its workers said: {said}" if said else str(error)) from None
        finally:
            _stop(started)

    def _environment(self, contender: Contender, more: dict[str, str]) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
        return ours | {
            "BENCH_REDIS_URL": self.server.url,
            "BENCH_STAMPS": str(self._stamps),
            "PYTHONPATH": str(Path(__file__).parent),
            "WORKER_DATA_DIR": str(self._folder),
            "WORKER_REDIS_URL": self.server.url,
            **contender.environment,
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


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def until_all_ran(stamps: Stamps, workers: Workers, poll: float = POLL) -> Iterator[int]:
    """The number of messages that have run, again and again, until all have run."""
    before, since = 0, time.monotonic()
    while (ran := stamps.ran()) < stamps.count:
        if ran > before:
            before, since = ran, time.monotonic()
        elif workers.ended() or time.monotonic() - since > STALLED:
            raise Failed(f"{ran} of {stamps.count} messages ran")
        yield ran
        time.sleep(poll)


def rates(stamps: Stamps, processes: int) -> Figures:
    """Messages per second: while all processes worked, and from the first to the last message."""
    times: dict[int, list[int]] = defaultdict(list)
    for at, by in zip(stamps.ran_at, stamps.ran_by, strict=True):
        times[by].append(at)
    everything = sorted(itertools.chain.from_iterable(times.values()))
    whole = (len(everything) - 1) / (everything[-1] - everything[0]) * 1e9
    begin, end = max(map(min, times.values())), min(map(max, times.values()))
    together = sum(begin <= at <= end for at in everything)
    # If one process did nearly all the work, the time shows nothing about two.
    told = len(times) == processes and together > len(everything) / 10
    return {
        "per_second": (together - 1) / (end - begin) * 1e9 if told else whole,
        "per_second_first_to_last": whole,
        "messages_by_process": sorted(map(len, times.values())),
    }


def throughput(bench: Bench, contender: Contender, size: Size, processes: int) -> Figures:
    messages = size.messages
    stamps = bench.begin(messages)
    memory = bench.server.used_memory()
    bench.drive(contender, "enqueue")
    first: Usage | None = None
    with bench.workers(contender, processes) as workers:
        for ran in until_all_ran(stamps, workers):
            if first is None and ran and (ran > messages / 2 or len(set(stamps.ran_by) - {0}) == processes):
                first = workers.usage()
        time.sleep(SETTLE)
        last = workers.usage()
    figures = rates(stamps, processes)
    if first is not None and (counted := sum(at > first.at for at in stamps.ran_at)):
        figures["worker_us"] = last.workers_since(first) / counted * 1e6
        figures["server_us"] = (last.server - first.server) / counted * 1e6
    figures["server_bytes"] = (bench.server.used_memory() - memory) / messages
    return figures


def enqueue(bench: Bench, contender: Contender, size: Size) -> Figures:
    bench.begin(size.messages)
    figures = {"per_second": bench.drive(contender, "enqueue")["per_second"]}
    bench.begin(size.messages)
    together = bench.drive(contender, "enqueue_many")
    return figures | {"together_per_second": together.get("per_second")}


def latency(bench: Bench, contender: Contender, size: Size) -> Figures:
    # The first message shows that the worker is up. The rounds share the others.
    stamps = bench.begin(1 + math.ceil(min(size.messages, LATENCY_MESSAGES) / size.rounds))
    with bench.workers(contender) as workers:
        bench.drive(contender, "latency")
        for _ in until_all_ran(stamps, workers):
            pass
    waits = [(ran - sent) / 1e6 for sent, ran in zip(stamps.sent_at, stamps.ran_at, strict=True)][1:]
    return {"all_ms": [round(wait, 3) for wait in waits]}


def idle(bench: Bench, contender: Contender, size: Size) -> Figures:
    del size
    stamps = bench.begin(2)
    bench.drive(contender, "enqueue")
    with bench.workers(contender, BENCH_MORE_QUEUES=" ".join(MORE_QUEUES)) as workers:
        for _ in until_all_ran(stamps, workers):
            pass
        time.sleep(QUIET)
        before, requests, usage = bench.server.commands(), bench.server.requests(), workers.usage()
        time.sleep(IDLE_SECONDS)
        after, requests_after, usage_after = bench.server.commands(), bench.server.requests(), workers.usage()
    calls = {name: count - before.get(name, 0) for name, count in after.items()}
    # Two calls are our own.
    calls["info"] -= 2
    return {
        "requests_per_second": (requests_after - requests - 2) / IDLE_SECONDS,
        "commands_per_second": sum(calls.values()) / IDLE_SECONDS,
        "cpu_percent": usage_after.workers_since(usage) / IDLE_SECONDS * 100,
        "server_cpu_percent": (usage_after.server - usage.server) / IDLE_SECONDS * 100,
        "commands": {name: count for name, count in calls.items() if count},
    }


def memory(bench: Bench, contender: Contender, size: Size) -> Figures:
    messages = size.messages * MEMORY_TIMES
    stamps = bench.begin(messages)
    before = bench.server.used_memory()
    bench.drive(contender, "enqueue")
    waiting = bench.server.used_memory()
    points: list[tuple[int, float]] = []

    def look(ran: int) -> None:
        running = set(stamps.ran_by) - {0}
        points.append((ran, sum(p.memory_info().rss for p in workers.all() if p.pid in running) / 1e6))

    with bench.workers(contender, quiet=True) as workers:
        for ran in until_all_ran(stamps, workers):
            if ran >= (len(points) + 1) * messages / MEMORY_POINTS:
                look(ran)
        time.sleep(SETTLE)
        look(messages)
    return {
        "rss_mb": [(ran, round(size, 1)) for ran, size in points],
        "growth_mb": points[-1][1] - points[0][1],
        "waiting_server_bytes": (waiting - before) / messages,
        "server_bytes": (bench.server.used_memory() - before) / messages,
    }


Measure = Callable[[Bench, Contender, Size], Figures]

# The part, the names of its figures, and the function that measures them.
MEASURES: tuple[tuple[str, str, Measure], ...] = (
    *(("throughput", f"throughput_{n}", functools.partial(throughput, processes=n)) for n in PROCESSES),
    ("enqueue", "enqueue", enqueue),
    ("latency", "latency", latency),
    ("idle", "idle", idle),
    ("memory", "memory", memory),
)


def taking_part(part: str, contenders: list[Contender]) -> list[Contender]:
    if part == "idle":
        return [contender for contender in contenders if contender.name in {OURS.name, AS_SHIPPED.name}]
    if part == "memory":
        return [OURS_FAILING for contender in contenders if contender.name == OURS.name]
    return contenders


def measure(bench: Bench, contenders: list[Contender], parts: list[str], size: Size) -> Found:
    """All figures: for each part and contender, one for each round."""
    found: Found = {}
    for number in range(size.rounds):
        for part, kind, measure_one in MEASURES:
            # Memory is measured once, over a long time.
            if part not in parts or (part == "memory" and number > 0):
                continue
            for contender in taking_part(part, contenders):
                tell(f"round {number + 1}: {kind}: {contender.name}")
                try:
                    figures = measure_one(bench, contender, size)
                except Failed as error:
                    figures = {"failed": str(error)}
                    print(f"{kind}: {contender.name}: {error}", file=sys.stderr)
                found.setdefault(kind, {}).setdefault(contender.name, []).append(figures)
    tell("")
    return found


def tell(what: str) -> None:
    """Prints the present measurement, if standard error is a terminal."""
    if sys.stderr.isatty():
        print(what.ljust(60), end="\r", file=sys.stderr, flush=True)


def medians(rounds: list[Figures]) -> Figures:
    """The median of each figure that all rounds have; the waits of all rounds are joined."""
    good = [figures for figures in rounds if "failed" not in figures]
    if not good:
        return {}
    numbers = [name for name, value in good[0].items() if isinstance(value, int | float)]
    summary = {name: statistics.median(figures[name] for figures in good if name in figures) for name in numbers}
    if "all_ms" in good[0]:
        waits = sorted(itertools.chain.from_iterable(figures["all_ms"] for figures in good))
        summary["median_ms"] = statistics.median(waits)
        summary["p99_ms"] = waits[math.ceil(len(waits) * 0.99) - 1]
        summary["worst_ms"] = waits[-1]
    return summary


COLUMNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    **{
        f"throughput_{n}": (
            ("messages/s", "per_second", ",.0f"),
            ("first to last", "per_second_first_to_last", ",.0f"),
            ("worker µs", "worker_us", ".0f"),
            ("server µs", "server_us", ".0f"),
            ("server bytes", "server_bytes", ",.0f"),
        )
        for n in PROCESSES
    },
    "enqueue": (("messages/s", "per_second", ",.0f"), ("together/s", "together_per_second", ",.0f")),
    "latency": (("median ms", "median_ms", ".1f"), ("p99 ms", "p99_ms", ".1f"), ("worst ms", "worst_ms", ".1f")),
    "idle": (
        ("requests/s", "requests_per_second", ".1f"),
        ("commands/s", "commands_per_second", ".1f"),
        ("CPU %", "cpu_percent", ".2f"),
        ("server CPU %", "server_cpu_percent", ".2f"),
    ),
    "memory": (
        ("growth MB", "growth_mb", ".1f"),
        ("waiting bytes", "waiting_server_bytes", ",.0f"),
        ("server bytes", "server_bytes", ",.0f"),
    ),
}
TITLES = {
    **{f"throughput_{n}": f"Throughput, {n} worker process{'es' if n > 1 else ''}" for n in PROCESSES},
    "enqueue": "Enqueueing",
    "latency": "From `send` to the actor's first line, idle worker",
    "idle": f"An idle process with {1 + len(MORE_QUEUES)} queues",
    "memory": "Memory, every tenth message failing",
}


def show(results: dict[str, dict[str, Figures]], found: Found) -> None:
    for kind, summaries in results.items():
        columns = COLUMNS[kind]
        first = columns[0][1]
        base = summaries.get(AS_SHIPPED.name, {}).get(first)
        print(f"\n{TITLES[kind]}")
        print(f"{'':16}" + "".join(f"{title:>15}" for title, _, _ in columns) + (f"{'ratio':>8}" if base else ""))
        for name, summary in summaries.items():
            shown = "".join(
                f"{format(summary[key], form) if summary.get(key) is not None else '-':>15}" for _, key, form in columns
            )
            ratio = f"{summary[first] / base:8.2f}" if base and first in summary else ""
            print(f"{name:16}{shown}{ratio}")
    for figures in found.get("memory", {}).get(OURS_FAILING.name, []):
        print("RSS (MB): " + ", ".join(f"{size:.0f} after {ran:,}" for ran, size in figures.get("rss_mb", [])))


VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def versions(python: str, packages: Iterable[str]) -> dict[str, str] | None:
    """An interpreter's versions of these packages, or None if it lacks one."""
    asked = subprocess.run([python, "-c", VERSIONS, *packages], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        return None
    told: dict[str, str] = json.loads(asked.stdout)
    return told


def installed(contenders: Iterable[Contender], pythons: list[str]) -> Iterator[tuple[Contender, str, dict[str, str]]]:
    """The installed contenders, each with its interpreter and versions."""
    for contender in contenders:
        for python in pythons:
            told = versions(python, (*contender.packages, "redis", "hiredis"))
            if told is not None:
                yield contender, python, told
                break
        else:
            print(f"{contender.name} is left out: {' or '.join(contender.packages)} is missing", file=sys.stderr)


def run(options: argparse.Namespace) -> Figures:
    wanted = [contender for contender in CONTENDERS if not options.only or contender.name in options.only]
    pythons = [sys.executable, *([str(options.second_python.absolute())] if options.second_python else [])]
    there = list(installed(wanted, pythons))
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name), appendonly=options.appendonly)
        try:
            bench = Bench(Path(name), server, {contender.name: python for contender, python, _ in there})
            told = server.info("server")
            parts = options.part or list(PARTS)
            size = Size(options.messages, options.rounds)
            found = measure(bench, [contender for contender, _, _ in there], parts, size)
        finally:
            server.stop()
    results = {kind: {name: medians(rounds) for name, rounds in by.items()} for kind, by in found.items()}
    report: Figures = {
        "messages": options.messages,
        "rounds": options.rounds,
        "appendonly": options.appendonly,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "server": f"{told.get('server_name', 'redis')} {told.get('valkey_version', told['redis_version'])}",
        "versions": {contender.name: told for contender, _, told in there},
        "results": results,
        "all": found,
    }
    print(f"{options.messages:,} messages, {options.rounds} rounds, {report['machine']}, Python {report['python']}")
    print(f"{report['server']}, append-only file {'on' if options.appendonly else 'off'}")
    for name, of in report["versions"].items():
        print(f"{name:16}" + ", ".join(f"{package} {version}" for package, version in of.items()))
    show(results, found)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn; the median counts")
    parser.add_argument("--messages", type=int, default=20_000)
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--appendonly", action="store_true", help="the server keeps its append-only file")
    parser.add_argument("--second-python", type=Path, metavar="PROGRAM", help="one with the missing contenders")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the file to write the figures to")
    options = parser.parse_args()
    report = run(options)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    failures = [figures for by in report["all"].values() for rounds in by.values() for figures in rounds]
    sys.exit(any("failed" in figures for figures in failures))


if __name__ == "__main__":
    main()
