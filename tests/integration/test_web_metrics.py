"""The metrics, as Prometheus reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.account import WINDOWS
from tests.support.waiting import wait_until
from tests.support.web import serving, some_messages
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app

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
