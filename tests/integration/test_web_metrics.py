"""The metrics, as Prometheus reads them."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.account import WINDOWS
from tests.support.brokers import own_broker
from tests.support.waiting import wait_until
from tests.support.web import serving, some_messages
from worker import actor
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app, metrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def web(settings: Settings, valkey: EmbeddedServer) -> Iterator[httpx.Client]:
    with some_messages(settings), serving(create_app(settings)) as client:
        yield client


def read(web: httpx.Client) -> Samples:
    answer = web.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_everything_that_is_promised_is_there(web: httpx.Client) -> None:
    """Attempts, durations, waits, depth, age, dead letters, pools, blocked time, dropped events."""
    found = read(web)
    outcomes = {"completed": 4, "skipped": 1, "failed": 3}
    for outcome, number in outcomes.items():
        assert value(found, "worker_attempts_total", actor="convert", outcome=outcome) == number
    for name in ("worker_attempt_duration_seconds", "worker_queue_wait_seconds"):
        assert value(found, f"{name}_count", actor="convert") == 8
        assert value(found, f"{name}_bucket", actor="convert", le="+Inf") == 8
        assert value(found, f"{name}_sum", actor="convert") > 0
    assert value(found, "worker_loop_blocked_seconds_total", actor="convert") == 0
    assert value(found, "worker_queue_depth", queue="any", state="delayed") == 3
    assert value(found, "worker_queue_depth", queue="slow", state="running") == 1
    assert value(found, "worker_queue_oldest_age_seconds", queue="any") == 0
    assert value(found, "worker_queue_paused", queue="any") == 0
    assert value(found, "worker_dead_letters", cause="ValueError") == 3
    assert value(found, "worker_messages", state="completed") == 4
    assert value(found, "worker_workers_alive") == 1
    assert value(found, "worker_web_loop_blocked_seconds_total") >= 0
    of_workers = {name for name, labels in found if dict(labels).keys() == {"worker"}}
    assert {
        "worker_pool_busy",
        "worker_pool_size",
        "worker_pool_waiting",
        "worker_pool_saturation",
        "worker_events_dropped_total",
        "worker_ends_waiting",
        "worker_overruns_total",
        "worker_threads",
        "worker_attempts_running",
    } <= of_workers


def test_counters_only_grow(web: httpx.Client, client: RedisClient) -> None:
    """Also when the history forgets what they were counted from."""
    before = read(web)
    web.post("/api/actions/replay", json={"filter": {"state": ["dead"]}})
    wait_until(lambda: value(read(web), "worker_attempts_total", actor="convert", outcome="failed") == 6)
    for prefix in WINDOWS:
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)
    web.post("/api/actions/purge", json={"filter": {"state": ["dead"]}})
    after = read(web)
    counters = {key for key in before if key[0].endswith(("_total", "_bucket", "_count", "_sum"))}
    assert len(counters) > 50
    assert [key for key in counters if after[key] < before[key]] == []
    assert ("worker_dead_letters", frozenset({("cause", "ValueError")})) not in after


def test_a_histogram_is_one(web: httpx.Client) -> None:
    """Each bound counts at least what the one before it does, and the last all."""
    found = read(web)
    bounds = sorted(
        (float(dict(labels)["le"]), number)
        for (name, labels), number in found.items()
        if name == "worker_attempt_duration_seconds_bucket" and ("actor", "convert") in labels
    )
    assert len(bounds) == 21
    assert [number for _, number in bounds] == sorted(number for _, number in bounds)


def test_the_newer_format_is_given_to_who_asks_for_it(web: httpx.Client) -> None:
    """Prometheus does."""
    answer = web.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = parse_open_metrics(answer.text)  # type: ignore[no-untyped-call]
    assert len(list(families)) > 15


def test_a_loop_of_the_web_that_is_blocked_is_counted(settings: Settings, valkey: EmbeddedServer) -> None:
    """Nobody was answered meanwhile."""
    app = create_app(settings)
    stuck = threading.Event()

    @app.get("/block")
    async def block() -> None:
        stuck.wait(0.3)

    with serving(app) as web:
        web.get("/block")
        wait_until(lambda: value(read(web), "worker_web_loop_blocked_seconds_total") > 0.1)


MANY = 10_000


def many_actors(client: RedisClient) -> None:
    """Counters as of so many actors: each with ten, and the higher its number, the more attempts."""
    pipeline = client.pipeline(transaction=False)
    for number in range(MANY):
        counts = {f"d{bucket}": 1 for bucket in range(60, 68)} | {"completed": number + 1, "q50": 8}
        fields: dict[Any, Any] = {f"actor-{number:05}\t{what}": count for what, count in counts.items()}
        pipeline.hset(f"{client.namespace.prefix}sums", mapping=fields)
    pipeline.execute()


@pytest.mark.clock
def test_however_many_actors_there_are_the_loop_goes_on(
    settings: Settings, client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten thousand: the probe is answered all the while; the busiest thousand have series, and the rest is told."""
    many_actors(client)
    with serving(create_app(settings)) as web, ThreadPoolExecutor(2) as pool:
        read(web)
        asked = [pool.submit(httpx.get, f"{web.base_url}/metrics", timeout=60) for _ in range(2)]
        took = []
        while not all(one.done() for one in asked):
            began = time.monotonic()
            assert web.get("/health/live").status_code == 200
            took.append(time.monotonic() - began)
        assert len(took) > 20
        assert statistics.median(took) < 0.05
        assert max(took) < 1
        found = read(web)
    ended = {dict(labels)["actor"] for (name, labels) in found if name == "worker_attempts_total"}
    assert ended == {f"actor-{number:05}" for number in range(MANY - metrics.MOST, MANY)}
    assert value(found, "worker_metrics_left_out", kind="actor") == MANY - metrics.MOST
    assert value(found, "worker_metrics_left_out", kind="queue") == 0
    assert value(found, "worker_attempt_duration_seconds_count", actor="actor-09999") == 8
    assert len(found) < 60 * metrics.MOST
    logged = [line for line in caplog.text.splitlines() if "the metrics leave some out" in line]
    assert len(logged) == 1


def test_queues_are_bounded_too(settings: Settings, client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with the most messages have series."""
    monkeypatch.setattr(metrics, "MOST", 2)
    with own_broker(settings):

        @actor(queue_name="queue-0")
        def work() -> None: ...

        for number in range(4):
            for _ in range(number + 1):
                dramatiq.get_broker().enqueue(work.message().copy(queue_name=f"queue-{number}"))
        with serving(create_app(settings)) as web:
            found = read(web)
    assert {dict(labels)["queue"] for name, labels in found if name == "worker_queue_depth"} == {"queue-2", "queue-3"}
    assert value(found, "worker_metrics_left_out", kind="queue") == 2
