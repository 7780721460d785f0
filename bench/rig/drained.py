"""Measurements of messages that do nothing: how fast they are drained and sent, and what an idle worker costs."""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict

from contenders import Contender
from contenders.stamps import Stamps

from rig.running import Bench, Figures, Size, until_all
from rig.server import Usage

LATENCY_MESSAGES = 200
IDLE_SECONDS = 10.0
MORE_QUEUES = ("second", "third")
MEMORY_TIMES = 10
MEMORY_POINTS = 10
SETTLE = 0.25
QUIET = 3.0


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
        for ran in until_all(stamps.ran, stamps.count, workers):
            if first is None and ran and (ran > messages / 2 or len(set(stamps.ran_by) - {0}) == processes):
                first = workers.usage()
        time.sleep(SETTLE)
        last = workers.usage()
        megabytes = workers.megabytes(stamps.ran_by)
    figures = rates(stamps, processes)
    figures["mb"] = megabytes
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
        for _ in until_all(stamps.ran, stamps.count, workers):
            pass
    waits = [(ran - sent) / 1e6 for sent, ran in zip(stamps.sent_at, stamps.ran_at, strict=True)][1:]
    return {"all_ms": [round(wait, 3) for wait in waits]}


def idle(bench: Bench, contender: Contender, size: Size) -> Figures:
    del size
    stamps = bench.begin(2)
    bench.drive(contender, "enqueue")
    with bench.workers(contender, BENCH_MORE_QUEUES=" ".join(MORE_QUEUES)) as workers:
        for _ in until_all(stamps.ran, stamps.count, workers):
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
        points.append((ran, workers.megabytes(stamps.ran_by)))

    with bench.workers(contender, quiet=True) as workers:
        for ran in until_all(stamps.ran, stamps.count, workers):
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
