"""Waiting is no failure: three messages on one lease, in every figure and every list that there is."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.brokers import own_broker
from tests.support.indexes import indexes_agree
from tests.support.waiting import wait_until
from tests.support.web import serving
from tests.support.workers import working
from worker import RetryLater, actor, current_attempt, lease
from worker.cli.status import look
from worker.history.events import State
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import actor_rates
from worker.history.query import all_messages, ask, dead_by_cause, one_message, read_events, state_counts
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app

HOUR = timedelta(hours=1)


@pytest.fixture
def quick(settings: Settings, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings; what waits for a lease tries again at once."""
    monkeypatch.setattr("worker.broker.named_leases.TRY_AGAIN", (0.01, 0.02))
    return settings


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """What a test opens, until its end."""
    with contextlib.ExitStack() as stack:
        yield stack


def outcomes(web: httpx.Client, of_actor: str) -> dict[str, float]:
    """The attempts of an actor by outcome, as Prometheus reads them."""
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(web.get("/metrics").text)
        for sample in family.samples
        if sample.name == "worker_attempts_total" and sample.labels["actor"] == of_actor
    }


def test_three_messages_on_one_lease_are_no_failure_anywhere(
    quick: Settings, client: RedisClient, opened: contextlib.ExitStack
) -> None:
    """Two wait and are snoozed, time and again: no error rate, no failure in a list, no alert; and each is found."""
    broker = opened.enter_context(own_broker(quick))
    leave = threading.Event()

    @actor(subject=("number",), max_retries=0)
    def one_at_a_time(number: int) -> None:
        with lease("one"):
            leave.wait(30)

    def snoozed() -> int:
        rates = {one.actor: one for one in ask(client, actor_rates(HOUR))}
        return rates["one_at_a_time"].ended["snoozed"] if rates else 0

    with serving(create_app(quick)) as web:
        with working(broker, threads=3):
            sent = [one_at_a_time.send(number).message_id for number in range(3)]
            wait_until(lambda: snoozed() >= 4)
            assert "snoozed" in web.get("/").text
            leave.set()
            broker.join("default", timeout=30_000)
        (rates,) = ask(client, actor_rates(HOUR))
        assert rates.error_share == 0
        assert rates.ended == {**dict.fromkeys(rates.ended, 0), "completed": 3, "snoozed": snoozed()}
        assert outcomes(web, "one_at_a_time") == {"completed": 3, "snoozed": snoozed()}
        told: Any = web.get("/api/actors").json()["actors"][0]
        assert (told["error_share"], told["ended"]["snoozed"]) == (0, snoozed())
        found = web.get("/api/messages", params={"state": "snoozed"}).json()["messages"]
    assert look(client, quick, HOUR).failures == ()
    assert ask(client, state_counts()) == {"completed": 3}
    events = read_events(client, EventFilter(state=State.SNOOZED), 1_000)
    assert Counter(event.event for event in events) == {"one_at_a_time.snoozed": snoozed()}
    assert all("retry in" in event.text for event in events)
    assert read_events(client, EventFilter(state=State.FAILED), 1_000) == []
    waited = {event.message_id for event in events}
    assert {one["id"] for one in found} == waited < set(sent)
    assert {one.id for one in all_messages(client, MessageFilter(states=("snoozed",)))} == waited
    assert list(all_messages(client, MessageFilter(states=("failed",)))) == []
    indexes_agree(client)


def test_only_the_request_for_a_later_time_that_spends_the_budget_is_a_failure(
    quick: Settings, client: RedisClient, opened: contextlib.ExitStack
) -> None:
    """It is a dead letter with the error as its cause; those before it were snoozed, and count as no errors."""
    broker = opened.enter_context(own_broker(quick))

    @actor(max_retries=2)
    async def busy() -> None:
        raise RetryLater(0.01, "the model is busy")

    with working(broker, threads=3):
        sent = busy.send().message_id
        broker.join("default", timeout=30_000)
        wait_until(lambda: ask(client, state_counts()) == {"dead": 1})
    message = ask(client, one_message(sent))
    assert message is not None
    ends = [(event.state, event.text) for event in message.events if event.state.is_final]
    assert ends == [*[(State.SNOOZED, "retry in 10ms")] * 2, (State.FAILED, "dead letter")]
    assert ask(client, dead_by_cause()) == {"worker.errors.RetryLater": 1}
    (rates,) = ask(client, actor_rates(HOUR))
    assert (rates.ended["snoozed"], rates.ended["failed"], rates.error_share) == (2, 1, 1)


def test_who_asks_to_be_told_of_failures_is_not_told_of_waiting(
    quick: Settings, client: RedisClient, opened: contextlib.ExitStack
) -> None:
    """Dramatiq's `on_failure` is called for the attempts that failed, once each, and for no other."""
    broker = opened.enter_context(own_broker(quick))
    told: list[str] = []

    @actor
    def tell(message: dict[str, Any], error: dict[str, str]) -> None:
        told.append(error["message"])

    @dramatiq.actor(max_retries=2, min_backoff=1, max_backoff=5, on_failure="tell")
    def busy(number: int) -> None:
        attempt = current_attempt()
        if attempt is not None and attempt.number == number:
            raise ValueError("broken")
        raise RetryLater(0.01, "busy")

    with working(broker, threads=3):
        busy.send(2)
        broker.join("default", timeout=30_000)
        wait_until(lambda: ask(client, state_counts()) == {"dead": 1, "completed": len(told)})
    assert sorted(told) == ["broken", "busy"]


def test_dramatiqs_own_broker_tells_of_waiting_too(
    quick: Settings, client: RedisClient, own_writer: None, opened: contextlib.ExitStack
) -> None:
    """Each attempt has a number of its own, whether or not it used the budget."""
    broker = opened.enter_context(own_broker(quick.model_copy(update={"broker": "redis-lists"})))
    leave = threading.Event()

    @actor(max_retries=0)
    def one_at_a_time() -> None:
        with lease("one"):
            leave.wait(30)

    def snoozed() -> list[int | None]:
        return [event.attempt for event in read_events(client, EventFilter(state=State.SNOOZED), 100)]

    with working(broker, threads=3):
        one_at_a_time.send()
        one_at_a_time.send()
        wait_until(lambda: len(snoozed()) >= 3)
        leave.set()
        broker.join("default", timeout=30_000)
    assert snoozed() == list(range(1, len(snoozed()) + 1))
    assert read_events(client, EventFilter(state=State.FAILED), 100) == []
    assert ask(client, state_counts()) == {"completed": 2}
