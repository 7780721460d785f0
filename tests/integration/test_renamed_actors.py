"""`@actor(aliases=…)`: an actor that was renamed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import dramatiq
import pytest

from tests.support.brokers import AT_ONCE, own_broker, stream_broker
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import idle_worker
from worker import actor, current_attempt
from worker.broker.streams import StreamBroker
from worker.history.filters import MessageFilter
from worker.history.overview import actor_rates
from worker.history.query import all_messages, ask, delayed_messages
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.testing import StubWorker, stub_worker

JOIN_MS = 60_000


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker on streams."""
    with stream_broker(settings, **AT_ONCE) as made:
        yield made


def old_message(number: int) -> dramatiq.Message[None]:
    """A message of a program in which the actor has its old name."""
    return dramatiq.Message("default", "old", (number,), {}, {})


def found(broker: StreamBroker, name: str) -> dict[str, str]:
    """The messages of an actor by this name: the id of each, and the name that is shown."""
    return {one.id: one.actor for one in all_messages(broker.client, MessageFilter(actor=name))}


def run_under_the_old_name(broker: StreamBroker) -> str:
    """A message that has run before the actor was renamed; its id."""

    @actor
    def old(number: int) -> None: ...

    sent = old.send(0)
    with idle_worker(broker) as worker:
        worker.start()
        broker.join("default", timeout=JOIN_MS)
    del broker.actors["old"]
    return sent.message_id


@pytest.mark.parametrize(("loop", "concurrency"), [("shared", None), ("shared", 3), ("new", None)])
def test_messages_under_the_old_name_run_and_are_told_under_the_new_one(
    broker: StreamBroker, loop: Literal["shared", "new"], concurrency: int | None
) -> None:
    """Those that wait, that are delayed, that run, and that have ended before the actor was renamed."""
    ended = run_under_the_old_name(broker)
    first, waits = broker.enqueue(old_message(1)), broker.enqueue(old_message(2))
    later = broker.enqueue(old_message(3), delay=3_600_000)
    ran: list[tuple[int, str]] = []

    @actor(aliases=("old", "older"), loop=loop, concurrency=concurrency)
    async def new(number: int) -> None:
        attempt = current_attempt()
        assert attempt is not None
        ran.append((number, attempt.actor))

    with idle_worker(broker) as worker:
        worker.start()
        wait_until(lambda: len(ran) == 2)
        broker.enqueue(dramatiq.Message("default", "older", (4,), {}, {}))
        sent = new.send(5)
        wait_until(lambda: len(ran) == 4)
        wait_until(lambda: stored(broker.client, sent.message_id).state == "completed")
    assert sorted(ran) == [(1, "new"), (2, "new"), (4, "new"), (5, "new")]
    for name in ("new", "old"):
        told = found(broker, name)
        assert set(told.values()) == {"new"}
        assert {ended, first.message_id, waits.message_id, later.message_id, sent.message_id} < set(told)
    record = stored(broker.client, first.message_id)
    assert [(event.event, event.actor) for event in record.events] == [("new.started", "new"), ("new.completed", "new")]
    assert stored(broker.client, later.message_id).actor == "new"
    assert [one.actor for one in ask(broker.client, delayed_messages())] == ["new"]
    assert stored(broker.client, ended).actor == "new"
    narrow = MessageFilter(actor="old", states=("failed", "completed"), error="ValueError")
    assert list(all_messages(broker.client, narrow, within=("completed", "dead"))) == []
    assert not broker.client.keys("{worker}:x:scratch*")
    assert "new" in [one.actor for one in ask(broker.client, actor_rates(timedelta(hours=1)))]


def test_a_name_that_an_actor_has_again_is_its_own(broker: StreamBroker) -> None:
    """As the last worker that joined has said."""

    @actor(aliases=("old",))
    def new(number: int) -> None: ...

    with idle_worker(broker) as worker:
        worker.start()
        wait_until(lambda: broker.client.hgetall("{worker}:renamed") == {b"old": b"new"})
    del broker.actors["new"], broker.actors["old"]

    @actor
    def old(number: int) -> None: ...

    sent = old.send(1)
    with idle_worker(broker) as worker:
        worker.start()
        broker.join("default", timeout=JOIN_MS)
    assert broker.client.hgetall("{worker}:renamed") == {}
    assert found(broker, "old") == {sent.message_id: "old"}


def test_an_alias_that_is_another_actors_name_is_refused(broker: StreamBroker) -> None:
    """Whichever of the two is declared first; nothing is declared then."""

    @actor
    def other() -> None: ...

    with pytest.raises(ValueError, match="'other' is a name of the actor other in .*: leave it out, or rename"):
        actor(aliases=("other",), actor_name="new")(print)
    with pytest.raises(ValueError, match="'new' is its own name"):
        actor(aliases=("new",), actor_name="new")(print)
    with pytest.raises(TypeError, match=r"aliases='old' of new: write a tuple"):
        actor(aliases="old", actor_name="new")(print)  # type: ignore[call-overload]
    assert "new" not in broker.actors
    actor(aliases=("old",), actor_name="new")(print)
    with pytest.raises(ValueError, match="old"):
        actor(actor_name="old")(print)
    with pytest.raises(ValueError, match="old"):
        dramatiq.actor(actor_name="old")(print)
    with pytest.raises(ValueError, match="'old' is a name of the actor new"):
        actor(aliases=("old",), actor_name="newer")(print)


def test_messages_under_the_old_name_run_in_a_test_too(settings: Settings) -> None:
    """On a stub broker, also where the actor was declared before."""
    with own_broker(settings):

        @actor(aliases=("old",))
        def new(number: int) -> None: ...

        with stub_worker() as stub:
            assert isinstance(stub, StubWorker)
            stub.broker.enqueue(old_message(1))
            stub.join()
            assert [event.event for event in stub.events] == ["new.started", "new.completed"]
            assert [event.actor for event in stub.events] == ["new", "new"]
