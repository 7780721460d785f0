"""Plug-ins of others on our broker: what each of them promises on Dramatiq's own is so on ours."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.dramatiq import DramatiqIntegration
from sentry_sdk.transport import Transport

from tests.compat.conftest import Brokers
from tests.support.project import BIN, Project
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import RetryLater, actor, current_attempt, lease
from worker.broker.backend import NamespacedBackend
from worker.history.events import State
from worker.history.filters import EventFilter, MessageFilter
from worker.history.query import all_messages, read_events
from worker.server.client import RedisClient

SKIPPED = MessageFilter(states=("skipped",))


def plugin(name: str) -> Any:
    """A module that is not typed."""
    return importlib.import_module(name)


# ------------------------------------------------------------------ dramatiq-abort


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_dramatiq_abort_interrupts_what_runs(brokers: Brokers, client: RedisClient, kind: str) -> None:
    """A coroutine cleans up; the attempt ends CANCELLED."""
    abort = plugin("dramatiq_abort")
    backend = plugin("dramatiq_abort.backends").RedisBackend(client=client)
    broker = brokers.ours()
    broker.add_middleware(abort.Abortable(backend=backend))
    noted: list[str] = []

    @actor(max_retries=0)
    async def coroutine() -> None:
        noted.append("began")
        try:
            await asyncio.sleep(60)
        finally:
            noted.append("cleaned up")

    @actor(max_retries=0)
    def function() -> None:
        noted.append("began")
        try:
            for _ in range(6_000):
                time.sleep(0.01)
        finally:
            noted.append("cleaned up")

    with working(broker):
        message = (coroutine if kind == "coroutine" else function).send()
        wait_until(lambda: noted == ["began"])
        abort.abort(message.message_id)
        wait_until(lambda: noted == ["began", "cleaned up"])
        ended = EventFilter(message_id=message.message_id)
        wait_until(lambda: any(event.state.is_final for event in read_events(client, ended, 10)))
    assert State.CANCELLED in [event.state for event in read_events(client, ended, 10)]


def test_dramatiq_abort_skips_what_waits(brokers: Brokers, client: RedisClient) -> None:
    """It never runs, and the history says why."""
    abort = plugin("dramatiq_abort")
    broker = brokers.ours()
    broker.add_middleware(abort.Abortable(backend=plugin("dramatiq_abort.backends").RedisBackend(client=client)))
    ran: list[int] = []

    @actor
    async def greet(number: int) -> None:
        ran.append(number)

    skipped = greet.send(1)
    abort.abort(skipped.message_id, mode=plugin("dramatiq_abort.middleware").AbortMode.CANCEL)
    greet.send(2)
    with working(broker):
        wait_until(lambda: ran == [2])
        wait_until(lambda: [one.id for one in all_messages(client, SKIPPED)] == [skipped.message_id])


# ------------------------------------------------------------------ dramatiq-workflow


def test_dramatiq_workflow_runs_chains_and_groups_in_order(brokers: Brokers) -> None:
    """A step begins when those before it have ended, with their retries; each runs once."""
    workflow = plugin("dramatiq_workflow")
    broker = brokers.ours()
    broker.add_middleware(workflow.WorkflowMiddleware(NamespacedBackend()))
    broker.emit_after("process_boot")
    ended: list[str] = []
    failed: list[str] = []

    @actor
    async def step(name: str) -> None:
        if name == "b" and not failed:
            failed.append(name)
            raise ValueError("the first attempt")
        ended.append(name)

    first, second = step.message("first"), step.message("last")
    members = [step.message("a"), step.message("b"), workflow.Chain(step.message("c"), step.message("d"))]
    with working(broker):
        workflow.Workflow(workflow.Chain(first, workflow.Group(*members), second)).run()
        wait_until(lambda: ended[-1:] == ["last"])
    assert sorted(ended) == ["a", "b", "c", "d", "first", "last"]
    assert ended[0] == "first"
    assert ended.index("c") < ended.index("d")


# ------------------------------------------------------------------ sentry-sdk


class Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        if (event := envelope.get_event()) is not None:
            self._events.append(event)

    def failures(self) -> list[Any]:
        """The reports, without those of a loop that a slow machine has blocked."""
        return [event for event in self._events if event.get("logger") != "worker.loops.watchdog"]


@pytest.fixture
def sentry() -> Iterator[Kept]:
    """What Sentry would get."""
    kept = Kept()
    sentry_sdk.init(transport=kept, integrations=[DramatiqIntegration()])
    yield kept
    sentry_sdk.init()


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_sentry_is_told_of_failures_and_of_no_snooze(sentry: Kept, brokers: Brokers, kind: str) -> None:
    """Neither by its middleware nor from the log: asking for a later time, or waiting for a lease, is no failure."""
    broker = brokers.ours()
    done: list[str] = []

    def body(what: str) -> None:
        attempt = current_attempt()
        assert attempt is not None
        if what == "later" and attempt.number == 1:
            raise RetryLater(0, "the model is busy")
        if what == "many" and attempt.number == 1:
            raise ExceptionGroup("all of them", [RetryLater(0), RetryLater(0)])
        if what == "fails":
            raise ValueError("no such address")
        done.append(what)

    @actor(max_retries=1)
    async def coroutine(what: str) -> None:
        body(what)

    @actor(max_retries=1)
    def function(what: str) -> None:
        body(what)

    run = coroutine if kind == "coroutine" else function
    with working(broker):
        for what in ("later", "many", "well"):
            run.send(what)
        wait_until(lambda: sorted(done) == ["later", "many", "well"])
        assert sentry.failures() == []
        run.send("fails")
        wait_until(lambda: bool(sentry.failures()))
    told = [value["type"] for event in sentry.failures() for value in event.get("exception", {"values": []})["values"]]
    assert set(told) == {"ValueError"}


def test_sentry_is_told_nothing_of_who_waits_for_a_lease(sentry: Kept, brokers: Brokers) -> None:
    """The message comes again, and runs."""
    broker = brokers.ours()
    done: list[int] = []

    @actor
    async def alone(number: int) -> None:
        async with lease("alone"):
            await asyncio.sleep(0.1)
            done.append(number)

    with working(broker):
        for number in range(2):
            alone.send(number)
        wait_until(lambda: sorted(done) == [0, 1])
    assert sentry.failures() == []


# ------------------------------------------------------------------ Dramatiq's Prometheus

METERED = """
import dramatiq
from dramatiq.middleware.prometheus import Prometheus
from worker import actor, create_broker

broker = create_broker(middleware=[Prometheus()])
dramatiq.set_broker(broker)

@actor(max_retries=1)
async def work(what: str) -> None:
    if what == "fails":
        raise ValueError("odd")
"""

SERIES = {
    "dramatiq_messages_total": 4,
    "dramatiq_message_errors_total": 2,
    "dramatiq_message_retries_total": 1,
    "dramatiq_message_rejects_total": 1,
    "dramatiq_messages_inprogress": 0,
    "dramatiq_delayed_messages_inprogress": 0,
    "dramatiq_message_duration_milliseconds_count": 4,
}


def test_every_series_of_dramatiqs_prometheus_is_told(tmp_path: Path) -> None:
    """With the numbers that the messages have made: two that succeed, and one that fails twice."""
    port = "39191"
    project = Project(tmp_path, dramatiq_prom_db=str(tmp_path / "prom"), dramatiq_prom_port=port)
    (project.elsewhere / "metered.py").write_text(METERED)

    def told() -> dict[str, float]:
        try:
            text = httpx.get(f"http://127.0.0.1:{port}/", timeout=5).text
        except httpx.HTTPError:
            return {}
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name.partition("{")[0]: float(value) for name, _, value in lines if 'actor_name="work"' in name}

    try:
        with project.background(str(BIN / "dramatiq"), "metered", "--processes", "1", "--threads", "1"):
            project.send("work", "succeeds")
            project.send("work", "succeeds")
            project.send("work", "fails")
            wait_until(lambda: {name: told().get(name) for name in SERIES} == SERIES)
    finally:
        project.down()


# ------------------------------------------------------------------ periodiq

PERIODIC = """
import dramatiq
from periodiq import PeriodiqMiddleware, cron
from worker import create_broker

broker = create_broker(middleware=[PeriodiqMiddleware(skip_delay=30)])
dramatiq.set_broker(broker)

@dramatiq.actor(periodic=cron("* * * * *"))
def tick() -> None:
    pass
"""


SCHEDULER = "import periodiq; periodiq.entrypoint()"


def test_periodiq_sends_what_is_due_and_skips_what_is_late(tmp_path: Path) -> None:
    """Its scheduler finds the actors of our broker; a message that waited too long is skipped, and told as such."""
    project = Project(tmp_path)
    (project.elsewhere / "periodic.py").write_text(PERIODIC)
    late = "import periodic; periodic.tick.send_with_options(scheduled_at='2020-01-01T00:00:00+00:00')"

    def found(state: str) -> int:
        return len(list(all_messages(project.client, MessageFilter(actor="tick", states=(state,)))))

    try:
        project.run(sys.executable, "-c", late)
        due = (
            "import pendulum, periodic, periodiq;"
            "periodiq.Scheduler([periodic.tick]).send_actors([periodic.tick], pendulum.now())"
        )
        project.run(sys.executable, "-c", due)
        with project.background(str(BIN / "dramatiq"), "periodic", "--processes", "1", "--threads", "1"):
            wait_until(lambda: (found("completed"), found("skipped")) == (1, 1))
        with project.background(sys.executable, "-c", SCHEDULER, "periodic"):
            log = project.folder / f"{Path(sys.executable).name}.log"
            wait_until(lambda: log.exists() and "periodic:tick@default" in log.read_text())
    finally:
        project.down()
