"""The figures of the history, in the form for Prometheus.

Each request asks the history, and nothing is counted here: so Prometheus may ask any web process, also a restarted one.
The counters are the server's, and only grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from worker.history.answers import QueueInfo, WorkerInfo
from worker.history.histogram import middle_ms
from worker.history.overview import queues, workers
from worker.history.query import aask, dead_by_cause, state_counts
from worker.history.states import OPEN
from worker.history.sums import ActorSums, actor_sums
from worker.loops.account import Blocked
from worker.server.async_client import AsyncRedisClient

# fmt: off
BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600,
)
# fmt: on
"""The bounds of the histograms, in seconds; the server's own buckets are finer."""


_Reading = tuple[str, Callable[[WorkerInfo], float]]

_GAUGES: Mapping[str, _Reading] = {
    "threads": ("Attempts that a worker can run at once.", lambda one: one.threads),
    "attempts_running": ("Attempts that a worker runs.", lambda one: len(one.attempts)),
    "pool_size": ("Threads for blocking calls, at most.", lambda one: one.pool_size),
    "pool_busy": ("Threads for blocking calls that are busy.", lambda one: one.pool_busy),
    "pool_waiting": ("Blocking calls that wait for a thread.", lambda one: one.pool_waiting),
    "pool_saturation": ("The share of these threads that is busy.", lambda one: one.pool_busy / (one.pool_size or 1)),
    "ends_waiting": ("Ends of attempts that are not stored yet.", lambda one: one.ends_waiting),
}
_COUNTERS: Mapping[str, _Reading] = {
    "events_dropped": ("STARTED and progress events that were not kept.", lambda one: one.events_dropped),
    "overruns": ("Coroutines that did not end in time when they were cancelled.", lambda one: one.overruns),
}


@dataclass(frozen=True, slots=True)
class Readings:
    """All readings of one request."""

    sums: tuple[ActorSums, ...]
    queues: tuple[QueueInfo, ...]
    workers: tuple[WorkerInfo, ...]
    states: Mapping[str, int]
    dead: Mapping[str, int]


async def read_all(history: AsyncRedisClient) -> Readings:
    """Asks for everything.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    return Readings(
        *await asyncio.gather(
            aask(history, actor_sums()),
            aask(history, queues()),
            aask(history, workers()),
            aask(history, state_counts()),
            aask(history, dead_by_cause()),
        )
    )


def expose(readings: Readings, blocked: Blocked, accept: str) -> tuple[bytes, str]:
    """The readings as text, and its media type, in the newest format that the reader accepts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(readings, blocked))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Collector(Collector):
    def __init__(self, readings: Readings, blocked: Blocked) -> None:
        self._readings = readings
        self._blocked = blocked

    def collect(self) -> Iterable[Metric]:
        found = self._readings
        alive = [worker for worker in found.workers if worker.alive]
        own = CounterMetricFamily("worker_web_loop_blocked_seconds", "How long the web process's loop was blocked.")
        own.add_metric([], self._blocked.seconds)
        return chain(_of_actors(found.sums), _of_messages(found), _of_queues(found.queues), _of_workers(alive), [own])


def _of_actors(sums: tuple[ActorSums, ...]) -> Iterator[Metric]:
    attempts = CounterMetricFamily("worker_attempts", "Attempts that ended.", labels=["actor", "outcome"])
    blocked = CounterMetricFamily(
        "worker_loop_blocked_seconds", "How long event loops of attempts were blocked.", labels=["actor"]
    )
    durations = HistogramMetricFamily("worker_attempt_duration_seconds", "How long attempts took.", labels=["actor"])
    waits = HistogramMetricFamily(
        "worker_queue_wait_seconds", "From the time a message was due to the start of an attempt.", labels=["actor"]
    )
    for one in sums:
        for outcome, number in sorted(one.ended.items()):
            attempts.add_metric([one.actor, outcome], number)
        blocked.add_metric([one.actor], one.blocked_ms / 1000)
        for family, counts in ((durations, one.durations), (waits, one.waits)):
            family.add_metric([one.actor], *_histogram(counts))
    yield from (attempts, blocked, durations, waits)


def _histogram(counts: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    """The counts up to each bound, and the sum; both as exact as the server's buckets are, ±5 %."""
    seconds = sorted((middle_ms(bucket) / 1000, number) for bucket, number in counts.items())
    buckets = [(str(float(bound)), float(sum(n for took, n in seconds if took <= bound))) for bound in BOUNDS]
    buckets.append(("+Inf", float(sum(number for _, number in seconds))))
    return buckets, sum(took * number for took, number in seconds)


def _of_messages(found: Readings) -> Iterator[Metric]:
    states = GaugeMetricFamily("worker_messages", "Messages that are kept, by state.", labels=["state"])
    for state, number in found.states.items():
        states.add_metric([state], number)
    dead = GaugeMetricFamily("worker_dead_letters", "Dead letters, by cause.", labels=["cause"])
    for cause, number in found.dead.items():
        dead.add_metric([cause], number)
    yield from (states, dead)


def _of_queues(found: Iterable[QueueInfo]) -> Iterator[Metric]:
    depth = GaugeMetricFamily("worker_queue_depth", "Messages of a queue, by state.", labels=["queue", "state"])
    oldest = GaugeMetricFamily(
        "worker_queue_oldest_age_seconds", "How long the oldest message waits; 0: none does.", labels=["queue"]
    )
    paused = GaugeMetricFamily("worker_queue_paused", "1: the queue is paused.", labels=["queue"])
    for queue in found:
        for state in OPEN:
            depth.add_metric([queue.name, state], getattr(queue, state))
        oldest.add_metric([queue.name], queue.oldest_seconds or 0)
        paused.add_metric([queue.name], queue.pause is not None)
    yield from (depth, oldest, paused)


def _of_workers(alive: list[WorkerInfo]) -> Iterator[Metric]:
    number = GaugeMetricFamily("worker_workers_alive", "Worker processes that are alive.")
    number.add_metric([], len(alive))
    yield number
    for name, (text, read) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"worker_{name}", text, labels=["worker"])
        for one in alive:
            gauge.add_metric([one.name], read(one))
        yield gauge
    for name, (text, read) in _COUNTERS.items():
        counter = CounterMetricFamily(f"worker_{name}", text, labels=["worker"])
        for one in alive:
            counter.add_metric([one.name], read(one))
        yield counter
