"""`@actor` on a broker of somebody else, such as a test's `StubBroker`: our errors and limits, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AgeLimit, Callbacks, Middleware, Pipelines, Retries

from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import NoContentFound, RetryLater, actor, current_attempt, testing
from worker.settings import Settings

pytest_plugins = ["worker.testing.pytest_plugin"]


@pytest.fixture
def stranger(settings: Settings) -> Iterator[StubBroker]:
    """The program's broker, as Dramatiq's guide to tests makes it."""
    broker = StubBroker()
    broker.emit_after("process_boot")
    dramatiq.set_broker(broker)
    yield broker
    broker.close()


def all_ended(broker: StubBroker, worker: dramatiq.Worker) -> None:
    broker.join("default", timeout=20_000, fail_fast=False)
    worker.join()


def test_nothing_of_an_actor_asks_for_a_server(stranger: StubBroker, settings: Settings) -> None:
    """Neither when it is declared, sent and run, nor when it is called directly."""

    @actor(subject=("name",))
    async def greet(name: str) -> None: ...

    @actor
    def count(number: int) -> None: ...

    began = time.monotonic()
    with working(stranger) as worker:
        greet.send("Ada")
        count.send(1)
        all_ended(stranger, worker)
    greet("Ada")
    count(1)
    assert not settings.data_dir.exists()
    assert time.monotonic() - began < 5


def test_an_attempt_comes_again_when_it_asks_for_it(stranger: StubBroker) -> None:
    """After the delay that it names, and not after Dramatiq's backoff of 15 seconds; a skip is no failure."""
    numbers: list[int] = []

    @actor
    async def later() -> None:
        attempt = current_attempt()
        assert attempt is not None
        numbers.append(attempt.number)
        if attempt.number == 1:
            raise RetryLater(0.05, "the model is busy")

    @actor
    def nothing() -> None:
        numbers.append(0)
        raise NoContentFound("nothing there")

    with working(stranger) as worker:
        later.send()
        nothing.send()
        all_ended(stranger, worker)
    assert sorted(numbers) == [0, 1, 2]
    assert stranger.dead_letters == []


@pytest.mark.parametrize("began", ["before", "after"])
def test_a_time_limit_ends_a_coroutine(stranger: StubBroker, began: str) -> None:
    """Its clean-up runs, also where the worker has begun before the first actor was declared."""
    ended: list[str] = []

    def declare() -> Any:
        @actor(max_retries=0, time_limit=timedelta(seconds=0.1))
        async def slow() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("cleaned up")

        return slow

    if began == "after":
        declare()
    with working(stranger) as worker:
        slow = declare() if began == "before" else stranger.get_actor("slow")
        wait_until(lambda: "default" in worker.consumers)
        slow.send()
        all_ended(stranger, worker)
    assert ended == ["cleaned up"]
    assert len(stranger.dead_letters) == 1


def test_the_brokers_own_values_and_middleware_stay(settings: Settings) -> None:
    """What it does not have, such as retries, it does not get; and it is changed once."""

    class Mine(Middleware):
        pass

    broker = StubBroker(middleware=[AgeLimit(), Mine(), Retries(max_retries=3), Callbacks(), Pipelines()])
    dramatiq.set_broker(broker)
    for name in "ab":

        def function() -> None: ...

        function.__name__ = name
        actor(function)
    kinds = [type(one).__name__ for one in broker.middleware]
    assert kinds == ["Runs", "AgeLimit", "Mine", "RetryPolicy", "Callbacks", "Pipelines"]
    assert [one.max_retries for one in broker.middleware if isinstance(one, Retries)] == [3]


def test_the_fixture_is_a_stub_broker_with_our_middleware(settings: Settings, stub_broker: StubBroker) -> None:
    """The test starts its own worker; delays are short, and no server is asked."""
    attempts: list[int] = []

    @actor
    async def later() -> None:
        attempt = current_attempt()
        assert attempt is not None
        attempts.append(attempt.number)
        if attempt.number < 3:
            raise RetryLater(3600)

    assert dramatiq.get_broker() is stub_broker
    with working(stub_broker) as worker:
        later.send()
        all_ended(stub_broker, worker)
    assert attempts == [1, 2, 3]
    assert not settings.data_dir.exists()


def test_actors_are_back_on_their_own_broker_after_a_stub_broker(settings: Settings) -> None:
    """Also after an error in the block."""
    own = StubBroker()
    dramatiq.set_broker(own)

    @actor
    def greet() -> None: ...

    with contextlib.suppress(ValueError), testing.stub_broker() as stub:
        assert greet.broker is stub
        raise ValueError("odd")
    assert greet.broker is own
    assert dramatiq.get_broker() is own
