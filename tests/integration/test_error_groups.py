"""Groups of errors on a real server: each type is found, and an interrupt in a group is that interrupt."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import dramatiq
import pytest

from tests.support.brokers import stream_broker
from tests.support.stored import state_of
from tests.support.waiting import wait_until
from tests.support.workers import idle_worker
from worker import Fatal, actor
from worker.broker.streams import StreamBroker
from worker.history.filters import EventFilter, MessageFilter
from worker.history.query import all_messages, ask, dead_by_cause, one_message, read_events
from worker.operations.actions import cancel, purge
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker with the usual settings."""
    with stream_broker(settings) as made:
        yield made


@pytest.fixture
def worker(broker: StreamBroker) -> Iterator[dramatiq.Worker]:
    """A worker, not started yet: an actor's queue is declared first."""
    with idle_worker(broker) as made:
        yield made


def test_a_message_is_found_by_each_type_in_its_group_and_dead_by_the_one_that_decides(
    broker: StreamBroker, worker: dramatiq.Worker
) -> None:
    """With and without the module; a purge leaves no mark."""

    @actor
    async def fails() -> None:
        both = asyncio.Barrier(2)

        async def one(error: Exception) -> None:
            await both.wait()
            raise error

        async with asyncio.TaskGroup() as group:
            group.create_task(one(KeyError("a")))
            group.create_task(one(Fatal("never")))

    message_id = fails.send().message_id
    worker.start()
    wait_until(lambda: state_of(broker.client, message_id) == "dead")
    for wanted in ("worker.errors.Fatal", "Fatal", "KeyError"):
        assert [one.id for one in all_messages(broker.client, MessageFilter(error=wanted))] == [message_id]
        assert [one.message_id for one in read_events(broker.client, EventFilter(error=wanted), 10)] == [message_id]
    assert not list(all_messages(broker.client, MessageFilter(error="ExceptionGroup")))
    assert ask(broker.client, dead_by_cause()) == {"worker.errors.Fatal": 1}
    stored = ask(broker.client, one_message(message_id))
    assert stored is not None
    assert stored.last_error == "Fatal, KeyError: never (and KeyError: 'a')"
    assert purge(broker.client, [message_id]).done
    assert ask(broker.client, dead_by_cause()) == {}
    marks = [name.decode() for name in broker.client.scan_iter("worker:x:*:error:*")]
    assert [name for name in marks if broker.client.bitcount(name)] == []


def test_a_cancelled_actor_that_collects_the_interrupt_in_a_group_is_cancelled(
    broker: StreamBroker, worker: dramatiq.Worker
) -> None:
    """The event has no error, as if the interrupt had come alone."""
    runs = threading.Event()

    @dramatiq.actor(broker=broker)
    def collects() -> None:
        try:
            while True:
                runs.set()
                time.sleep(0.01)
        except BaseException as error:  # noqa: BLE001 - what code does that collects errors
            raise BaseExceptionGroup("collected", [error]) from None

    message_id = collects.send().message_id
    worker.start()
    assert runs.wait(30)
    assert cancel(broker.client, [message_id]).done
    wait_until(lambda: state_of(broker.client, message_id) == "cancelled")
    stored = ask(broker.client, one_message(message_id))
    assert stored is not None
    assert [event.error for event in stored.events] == [None] * len(stored.events)


def test_a_shutdown_in_a_group_gives_the_message_back(broker: StreamBroker, worker: dramatiq.Worker) -> None:
    """CANCELLED, and queued for another worker: the message is not at fault."""
    runs = threading.Event()

    @dramatiq.actor(broker=broker, notify_shutdown=True)
    def collects() -> None:
        try:
            while True:
                runs.set()
                time.sleep(0.01)
        except BaseException as error:  # noqa: BLE001 - what code does that collects errors
            raise BaseExceptionGroup("collected", [ValueError("of its clean-up"), error]) from None

    message_id = collects.send().message_id
    worker.start()
    assert runs.wait(30)
    worker.stop()
    stored = ask(broker.client, one_message(message_id))
    assert stored is not None
    assert stored.state == "queued"
    assert [event.state.value for event in stored.events] == ["started", "cancelled"]
    error = stored.events[-1].error
    assert error is not None
    assert error.types == ("dramatiq.middleware.shutdown.Shutdown", "ValueError")
