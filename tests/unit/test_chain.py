"""The chain of middleware: one of each kind, whoever adds it and how."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.middleware import AgeLimit, Callbacks, CurrentMessage, GroupCallbacks, Middleware, Pipelines, Retries
from dramatiq.rate_limits.backends import StubBackend

from worker import create_broker
from worker.attempts.retry_policy import RetryPolicy
from worker.attempts.shutdown import ShutdownNotifications
from worker.attempts.time_limit import TimeLimit
from worker.settings import Settings

Adding = Callable[[Settings, Middleware], dramatiq.Broker]


def by_create_broker(settings: Settings, middleware: Middleware) -> dramatiq.Broker:
    return create_broker(settings, middleware=[middleware])


def by_add_middleware(settings: Settings, middleware: Middleware) -> dramatiq.Broker:
    broker = create_broker(settings)
    broker.add_middleware(middleware)
    return broker


@pytest.fixture(params=[by_create_broker, by_add_middleware])
def add(request: pytest.FixtureRequest) -> Adding:
    """The ways to add a middleware."""
    adding: Adding = request.param
    return adding


@pytest.fixture(params=["streams", "redis-lists"])
def kind(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings for each broker."""
    return settings.model_copy(update={"broker": request.param})


def kinds(broker: dramatiq.Broker) -> list[type[Middleware]]:
    return [type(one) for one in broker.middleware]


def test_a_middleware_takes_the_place_of_one_of_its_class(
    kind: Settings, add: Adding, caplog: pytest.LogCaptureFixture
) -> None:
    """Where that stood, and a line in the log says so."""
    mine = AgeLimit(max_age=60_000)
    broker = add(kind, mine)
    assert kinds(broker) == kinds(create_broker(kind))
    assert [one for one in broker.middleware if isinstance(one, AgeLimit)] == [mine]
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "takes the place" in line
    assert "AgeLimit" in line


@pytest.mark.parametrize("base", [AgeLimit, Callbacks, GroupCallbacks, Pipelines])
def test_a_class_that_derives_from_one_of_ours_takes_its_place(
    settings: Settings, add: Adding, base: type[Middleware]
) -> None:
    """And one that ours derives from, if it can do the work; nothing is done twice."""
    later = type("Later", (base,), {})
    mine: Middleware = later(StubBackend()) if base is GroupCallbacks else later()
    assert [one for one in add(settings, mine).middleware if isinstance(one, base)] == [mine]


def test_a_new_kind_is_added_as_the_last(settings: Settings, add: Adding) -> None:
    """With nothing in the log, and all others stay."""

    class Mine(Middleware):
        pass

    assert kinds(add(settings, Mine())) == [*kinds(create_broker(settings)), Mine]


def test_two_that_share_only_a_base_both_stay(settings: Settings) -> None:
    """They are no kind of each other."""

    class Base(Middleware):
        pass

    class One(Base):
        pass

    class Other(Base):
        pass

    assert kinds(create_broker(settings, middleware=[One(), Other()]))[-2:] == [One, Other]


def test_a_middleware_goes_where_it_is_told(settings: Settings) -> None:
    """`before` and `after` count more than the place of the one that leaves."""
    broker = create_broker(settings)
    mine = Callbacks()
    broker.add_middleware(mine, before=AgeLimit)
    found = kinds(broker)
    assert found.count(Callbacks) == 1
    assert broker.middleware[found.index(AgeLimit) - 1] is mine
    before = list(broker.middleware)
    with pytest.raises(ValueError, match="not found"):
        broker.add_middleware(Callbacks(), before=CurrentMessage)
    assert broker.middleware == before


def test_dramatiqs_own_retries_and_interrupts_give_their_values_to_ours(settings: Settings, add: Adding) -> None:
    """Theirs know neither coroutines nor the errors that decide."""
    retries = add(settings, Retries(max_retries=3, min_backoff=7, max_backoff=70, retry_when=lambda *_: True))
    [policy] = [one for one in retries.middleware if isinstance(one, Retries)]
    assert type(policy) is RetryPolicy
    assert (policy.max_retries, policy.min_backoff, policy.max_backoff) == (3, 7, 70)
    assert policy.retry_when is not None
    for theirs, ours in [
        (dramatiq.middleware.TimeLimit(time_limit=1_000), TimeLimit),
        (dramatiq.middleware.ShutdownNotifications(notify_shutdown=True), ShutdownNotifications),
    ]:
        found = kinds(add(settings, theirs))
        assert type(theirs) not in found
        assert found.count(ours) == 1


@pytest.mark.usefixtures("settings")
def test_actors_declared_before_keep_working_with_the_new_one(settings: Settings) -> None:
    """Its options are known, and its hook sees them."""
    broker = create_broker(settings.model_copy(update={"time_limit": timedelta(seconds=9)}))

    @dramatiq.actor(broker=broker, max_retries=2)
    def early() -> None: ...

    broker.add_middleware(Retries(max_retries=5))
    assert broker.get_actor("early").options["max_retries"] == 2
    assert "max_retries" in broker.actor_options
