"""Measures our broker beside others: throughput, waiting, enqueueing, latency, idleness, memory; all in the same run.

    python bench/broker.py [--quick] [--rounds 3] [--messages 20000] [--only NAME …] [--part PART …] [--appendonly]
                           [--json FILE]

Everything is measured from outside. A private server is started, and emptied before each measurement; contenders take
turns. Each no-op only writes the time and its process into a file that all processes share (`contenders/stamps.py`).
- throughput: all messages are enqueued first, then the workers start. The rate counts the time in which all processes
  work: from the moment the last one began to the moment the first one ended. CPU is that of the workers and of the
  server, in microseconds per message; bytes are those that the server still holds for each message at the end; MB are
  those of the processes that ran messages.
- waiting: coroutines that wait, in one process, as shipped and at most as many at once as the heading says. A run ends
  after `--seconds`, which small caps reach: `ended` messages had ended then. The rate counts up to the end of 99 in a
  hundred, the seconds to that of the last. MB are the most that the process that ran them held at a time.
- enqueue: messages per second, one after the other, from one thread; and together, if the contender can do that.
- latency: from `send` to the first line of the actor, on an idle worker, at random intervals of 50 to 500 ms.
- idle: the load of a process with three queues and no messages, on the server and the CPU. Requests are those that it
  sends; commands include those that its scripts call.
- memory: that of one process of ours over ten times as many messages; every tenth fails with a long traceback.

Contenders differ in what they keep: ours stores two events for each message, indexed, with its end. The others keep no
history, and only arq and SAQ results. Each has an environment of its own, made in `build/contenders` when it is
first needed (`rig/environments.py`); one that cannot be made is left out, and named with the reason.

`--quick` takes two or three minutes: coroutines that do nothing and coroutines that wait, on those that run them
without a thread for each, beside ours.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

try:
    import psutil  # noqa: F401
except ModuleNotFoundError as error:
    print(f"{error.name} is missing: pip install 'dramatiq-bridge[bench-broker]'", file=sys.stderr)
    sys.exit(2)
from contenders import AS_SHIPPED, CONTENDERS, OURS, OURS_FAILING, QUICK, Contender
from rig import waiting
from rig.drained import enqueue, idle, latency, memory, throughput
from rig.environments import FOLDER, Missing, python_of, versions
from rig.report import PROCESSES, Found, medians, show
from rig.running import Bench, Failed, Figures, Size
from rig.server import Server

PARTS = ("throughput", "waiting", "enqueue", "latency", "idle", "memory")
USUAL = Size(messages=20_000, rounds=3, seconds=15)
SHORT = Size(messages=10_000, rounds=2, seconds=6)

Measure = Callable[[Bench, Contender, Size], Figures]


class Measurement(NamedTuple):
    """A measurement: its part, the name of its figures, and the function that makes them."""

    part: str
    kind: str
    measure: Measure


MEASUREMENTS = (
    *(Measurement("throughput", f"throughput_{n}", functools.partial(throughput, processes=n)) for n in PROCESSES),
    *(
        Measurement("waiting", f"waiting_{name}", functools.partial(waiting.waiting, load=load))
        for name, load in waiting.LOADS.items()
    ),
    Measurement("enqueue", "enqueue", enqueue),
    Measurement("latency", "latency", latency),
    Measurement("idle", "idle", idle),
    Measurement("memory", "memory", memory),
)
QUICK_KINDS = ("throughput_1", *(f"waiting_{name}" for name in waiting.QUICK))


def taking_part(part: str, contenders: list[Contender]) -> list[Contender]:
    """Those of the contenders that a part measures."""
    if part == "idle":
        return [contender for contender in contenders if contender.name in {OURS.name, AS_SHIPPED.name}]
    if part == "memory":
        return [OURS_FAILING for contender in contenders if contender.name == OURS.name]
    if part == "waiting":
        return [contender for contender in contenders if contender.as_shipped is not None]
    return contenders


def measure(bench: Bench, contenders: list[Contender], measurements: list[Measurement], size: Size) -> Found:
    """All figures: for each measurement and contender, one for each round."""
    found: Found = {}
    for number in range(size.rounds):
        for part, kind, measure_one in measurements:
            # Memory is measured once, over a long time.
            if part == "memory" and number > 0:
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


class Field(NamedTuple):
    """Those that can take part, and those that cannot.

    Attributes:
        contenders: Those that can.
        pythons: The interpreter of each.
        versions: The versions of each.
        left_out: The reason why each of the others cannot.
    """

    contenders: list[Contender]
    pythons: dict[str, str]
    versions: dict[str, dict[str, str]]
    left_out: dict[str, str]


def gather(wanted: Iterable[Contender], environments: Path) -> Field:
    """Finds the contenders, or makes their environments."""
    field = Field([], {}, {}, {})
    for contender in wanted:
        try:
            python = python_of(contender, environments)
            field.versions[contender.name] = versions(python, contender.packages)
        except Missing as reason:
            field.left_out[contender.name] = str(reason)
            print(f"{contender.name} is left out: {reason}", file=sys.stderr)
        else:
            field.contenders.append(contender)
            field.pythons[contender.name] = python
    return field


def run(options: argparse.Namespace) -> Figures:
    """Measures, prints the tables, and returns everything."""
    contenders = QUICK if options.quick and not options.only else CONTENDERS
    field = gather(
        [one for one in contenders if not options.only or one.name in options.only], options.environments.absolute()
    )
    usual = SHORT if options.quick else USUAL
    size = Size(options.messages or usual.messages, options.rounds or usual.rounds, options.seconds or usual.seconds)
    measurements = [
        one
        for one in MEASUREMENTS
        if (one.part in options.part if options.part else not options.quick or one.kind in QUICK_KINDS)
    ]
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name), appendonly=options.appendonly)
        try:
            told = server.info("server")
            found = measure(Bench(Path(name), server, field.pythons), field.contenders, measurements, size)
        finally:
            server.stop()
    report: Figures = {
        **size._asdict(),
        "appendonly": options.appendonly,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "server": f"{told.get('server_name', 'redis')} {told.get('valkey_version', told['redis_version'])}",
        "versions": field.versions,
        "left_out": field.left_out,
        "results": {kind: {name: medians(rounds) for name, rounds in by.items()} for kind, by in found.items()},
        "all": found,
    }
    show_report(report)
    return report


def show_report(report: Figures) -> None:
    """Prints what was measured, and the tables."""
    print(f"{report['messages']:,} messages, {report['rounds']} rounds, {report['machine']}")
    print(f"{report['server']}, append-only file {'on' if report['appendonly'] else 'off'}")
    for name, of in report["versions"].items():
        print(f"{name:18}" + ", ".join(f"{package} {version}" for package, version in of.items()))
    for name, reason in report["left_out"].items():
        print(f"{name:18}left out: {reason}")
    show(report["results"], report["all"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="coroutines alone, in two or three minutes")
    parser.add_argument("--rounds", type=int, help=f"runs of each, in turn; the median counts ({USUAL.rounds})")
    parser.add_argument("--messages", type=int, help=f"messages that do nothing ({USUAL.messages})")
    parser.add_argument("--seconds", type=float, help=f"the longest time for coroutines that wait ({USUAL.seconds})")
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--appendonly", action="store_true", help="the server keeps its append-only file")
    parser.add_argument("--environments", type=Path, default=FOLDER, help="the folder of the contenders' environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the file to write the figures to")
    options = parser.parse_args()
    report = run(options)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    failures = [figures for by in report["all"].values() for rounds in by.values() for figures in rounds]
    sys.exit(any("failed" in figures for figures in failures))


if __name__ == "__main__":
    main()
