"""The medians of all rounds, and the tables that show them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator

from contenders import ARDIQ, AS_SHIPPED, OURS_FAILING

from rig.drained import MORE_QUEUES
from rig.running import Figures
from rig.waiting import LOADS

PROCESSES = (1, 2)

Found = dict[str, dict[str, list[Figures]]]


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
            ("MB", "mb", ".0f"),
        )
        for n in PROCESSES
    },
    **{
        f"waiting_{name}": (
            ("messages/s", "per_second", ",.0f"),
            ("at once", "at_once", ",.0f"),
            ("ended", "ended", ",.0f"),
            ("seconds", "seconds", ".2f"),
            ("worker µs", "worker_us", ".0f"),
            ("server µs", "server_us", ".0f"),
            ("MB", "mb", ".0f"),
            ("a s per MB", "per_second_per_mb", ".1f"),
        )
        for name in LOADS
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
    **{f"waiting_{name}": str(load) for name, load in LOADS.items()},
    "enqueue": "Enqueueing",
    "latency": "From `send` to the actor's first line, idle worker",
    "idle": f"An idle process with {1 + len(MORE_QUEUES)} queues",
    "memory": "Memory, every tenth message failing",
}
# The contender that the others are divided by, in the first column: the first of these that took part.
BASES = {"waiting": (ARDIQ, AS_SHIPPED)}
USUAL_BASES = (AS_SHIPPED, ARDIQ)


def show(results: dict[str, dict[str, Figures]], found: Found) -> None:
    """Prints a table for each measurement."""
    for kind, summaries in results.items():
        print(f"\n{TITLES[kind]}")
        for line in _table(kind, summaries):
            print(line)
    for figures in found.get("memory", {}).get(OURS_FAILING.name, []):
        print("RSS (MB): " + ", ".join(f"{size:.0f} after {ran:,}" for ran, size in figures.get("rss_mb", [])))


def _table(kind: str, summaries: dict[str, Figures]) -> Iterator[str]:
    columns = COLUMNS[kind]
    first = columns[0][1]
    names = [contender.name for contender in BASES.get(kind.partition("_")[0], USUAL_BASES)]
    base = next((name for name in names if summaries.get(name, {}).get(first)), None)
    yield f"{'':18}" + "".join(f"{title:>14}" for title, _, _ in columns) + (f"{'/ ' + base:>12}" if base else "")
    for name, summary in summaries.items():
        shown = "".join(
            f"{format(summary[key], form) if summary.get(key) is not None else '-':>14}" for _, key, form in columns
        )
        ratio = f"{summary[first] / summaries[base][first]:12.2f}" if base and first in summary else ""
        yield f"{name:18}{shown}{ratio}"
