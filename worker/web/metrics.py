"""The figures of the history, in the form for Prometheus.

Each request asks the history, and nothing is counted here: so Prometheus may ask any web process, also a restarted one.
The counters are the server's, and only grow. Everything is read and written out in a thread, for one request at a time:
however many actors there are, the loop goes on.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import accumulate, chain
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from worker.ground.logs import get_logger
from worker.history.answers import HistorySize, QueueInfo, WorkerInfo
from worker.history.histogram import middle_ms
from worker.history.overview import history_size, queues, workers
from worker.history.query import ask, dead_by_cause, state_counts
from worker.history.states import OPEN
from worker.history.sums import ActorSums, actor_sums
from worker.loops.account import Blocked
from worker.loops.loop_resources import loop_resource
from worker.loops.thread_pool import run_in_thread_pool
from worker.server.client import RedisClient
from worker.settings import Settings

logger = get_logger(__name__)

T = TypeVar("T")

MOST = 1_000
"""The most actors, queues, causes and workers, each, that have series; an actor has about fifty."""

# fmt: off
BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600,
)
# fmt: on
"""The bounds of the histograms, in seconds; the server's own buckets are finer."""

_BOUND_NAMES = (*(str(float(bound)) for bound in BOUNDS), "+Inf")


_Reading = tuple[str, Callable[[WorkerInfo], float]]

_GAUGES: Mapping[str, _Reading] = {
    "threads": ("Threads of a worker, each for one attempt at a time.", lambda one: one.threads),
    "concurrency": ("Attempts that a worker's shared loop runs at once, at most.", lambda one: one.concurrency),
    "attempts_running": ("Attempts that a worker runs.", lambda one: one.threads_busy + one.on_loop),
    "loop_stuck_seconds": (
        "Time for which the shared loop has been blocked by now.",
        lambda one: one.loop_blocked_seconds,
    ),
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
    """All readings of one request.

    Attributes:
        left_out: The numbers of actors, queues, causes and workers that are not among them, because there are too many.
    """

    sums: Sequence[ActorSums]
    queues: Sequence[QueueInfo]
    alive: Sequence[WorkerInfo]
    states: Mapping[str, int]
    dead: Mapping[str, int]
    history: HistorySize
    left_out: Mapping[str, int]


class Metrics:
    """Answers requests for the metrics, one after another.

    Args:
        client: Opens the client for blocking calls.
        settings: The settings with the bounds of the history.
        blocked: The stalls of the loop that answers.
    """

    def __init__(self, client: Callable[[], RedisClient], settings: Settings, blocked: Blocked) -> None:
        self._client = client
        self._settings = settings
        self._blocked = blocked
        self._turn = loop_resource(_turn)
        self._told: set[str] = set()

    async def expose(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text, and its media type, in the newest format that the reader accepts.

        Raises:
            ServerUnreachable: The server did not answer, or refused.
        """
        async with await self._turn():
            return await run_in_thread_pool(self._expose, accept)

    def _expose(self, accept: str) -> tuple[bytes, str]:
        readings = _read(self._client(), self._settings)
        self._tell(readings.left_out)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(readings, self._blocked))
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type

    def _tell(self, left_out: Mapping[str, int]) -> None:
        """Logs it once when there are more of a kind than have series."""
        now = {kind for kind, number in left_out.items() if number}
        for kind in sorted(now - self._told):
            logger.warning(
                "the metrics leave some out: there are too many", kind=kind, left_out=left_out[kind], most=MOST
            )
        self._told = now


async def _turn() -> AsyncIterator[asyncio.Lock]:
    yield asyncio.Lock()


def _read(client: RedisClient, settings: Settings) -> Readings:
    """Asks for everything; keeps the busiest actors, the fullest queues, the most frequent causes.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    sums = actor_sums(client)
    found = ask(client, queues())
    alive = [worker for worker in ask(client, workers()) if worker.alive]
    dead = ask(client, dead_by_cause())
    states = ask(client, state_counts())
    numbers = {"actor": len(sums), "queue": len(found), "worker": len(alive), "cause": len(dead)}
    return Readings(
        sums=sorted(sums[:MOST], key=lambda one: one.actor),
        queues=_fullest(found, lambda one: sum(getattr(one, state) for state in OPEN)),
        alive=alive[:MOST],
        states=states,
        history=ask(client, history_size(settings)),
        dead=dict(_fullest(tuple(dead.items()), lambda one: one[1])),
        left_out={kind: max(0, number - MOST) for kind, number in numbers.items()},
    )


def _fullest(found: Sequence[T], size: Callable[[T], int]) -> Sequence[T]:
    return found if len(found) <= MOST else nlargest(MOST, found, key=size)


class _Collector(Collector):
    def __init__(self, readings: Readings, blocked: Blocked) -> None:
        self._readings = readings
        self._blocked = blocked

    def collect(self) -> Iterable[Metric]:
        found = self._readings
        own = CounterMetricFamily("worker_web_loop_blocked_seconds", "How long the web process's loop was blocked.")
        own.add_metric([], self._blocked.seconds)
        left_out = GaugeMetricFamily(
            "worker_metrics_left_out", f"How many have no series, because there are more than {MOST}.", labels=["kind"]
        )
        for kind, number in found.left_out.items():
            left_out.add_metric([kind], number)
        of_all = _of_actors(found.sums), _of_messages(found), _of_queues(found.queues), _of_workers(found.alive)
        return chain(*of_all, [own, left_out])


def _of_actors(sums: Sequence[ActorSums]) -> Iterator[Metric]:
    attempts = CounterMetricFamily("worker_attempts", "Attempts that ended.", labels=["actor", "outcome"])
    blocked = CounterMetricFamily(
        "worker_loop_blocked_seconds", "How long event loops of attempts were blocked.", labels=["actor"]
    )
    for one in sums:
        for outcome, number in sorted(one.ended.items()):
            attempts.add_metric([one.actor, outcome], number)
        blocked.add_metric([one.actor], one.blocked_ms / 1000)
    yield from (attempts, blocked)
    durations, waits = ((one.actor, one.durations) for one in sums), ((one.actor, one.waits) for one in sums)
    yield _Histograms("worker_attempt_duration_seconds", "How long attempts took.", durations)
    yield _Histograms("worker_queue_wait_seconds", "From the time a message was due to the start of an attempt.", waits)


class _Histograms(Metric):
    """A histogram of each actor, made while it is written out.

    All their samples at once would be so many objects that the search for garbage among them stops the process.
    """

    def __init__(self, name: str, about: str, counts: Iterable[tuple[str, Mapping[int, int]]]) -> None:
        super().__init__(name, about, "histogram")
        self.samples = _Lazily(self._made(counts))

    def _made(self, counts: Iterable[tuple[str, Mapping[int, int]]]) -> Iterator[Sample]:
        for actor, of_actor in counts:
            one = HistogramMetricFamily(self.name, self.documentation, labels=["actor"])
            one.add_metric([actor], *_histogram(of_actor))
            yield from one.samples


class _Lazily(list[Sample]):
    """A list for the library, of samples that are made when they are read, once."""

    def __init__(self, made: Iterator[Sample]) -> None:
        super().__init__()
        self._made = made

    def __iter__(self) -> Iterator[Sample]:
        return self._made


def _histogram(counts: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    """The counts up to each bound, and the sum; both as exact as the server's buckets are, ±5 %."""
    between = [0] * len(_BOUND_NAMES)
    seconds = 0.0
    for bucket, number in counts.items():
        took = middle_ms(bucket) / 1000
        between[bisect_left(BOUNDS, took)] += number
        seconds += took * number
    return list(zip(_BOUND_NAMES, map(float, accumulate(between)), strict=True)), seconds


def _of_messages(found: Readings) -> Iterator[Metric]:
    states = GaugeMetricFamily("worker_messages", "Messages that are kept, by state.", labels=["state"])
    for state, number in found.states.items():
        states.add_metric([state], number)
    dead = GaugeMetricFamily("worker_dead_letters", "Dead letters, by cause.", labels=["cause"])
    for cause, number in found.dead.items():
        dead.add_metric([cause], number)
    yield from (states, dead, *_of_history(found.history))


def _of_history(found: HistorySize) -> Iterator[Metric]:
    size = GaugeMetricFamily(
        "worker_history_bytes", "Bytes that messages which have ended take, about.", labels=["kind"]
    )
    limit = GaugeMetricFamily(
        "worker_history_limit_bytes", "The bound of these bytes, where there is one.", labels=["kind"]
    )
    for kind, number, bound in (("ended", found.bytes, found.limit), ("dead", found.dead_bytes, found.dead_limit)):
        size.add_metric([kind], number)
        if bound is not None:
            limit.add_metric([kind], bound)
    yield from (size, limit)


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


def _of_workers(alive: Sequence[WorkerInfo]) -> Iterator[Metric]:
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
