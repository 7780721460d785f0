"""Processes that run the same actors in different ways, as while a new version takes the place of an old one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from tests.support.brokers import stream_broker
from tests.support.stored import state_of, stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import actor
from worker.broker.actor import Actor
from worker.broker.streams import StreamBroker
from worker.server.embedded import EmbeddedServer
from worker.server.keys import LOOP
from worker.settings import Settings


class Blocks(Middleware):
    """Somebody's middleware that says nothing of the loop: with it, async actors take threads."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Does as if it blocked."""


@contextlib.contextmanager
def process(
    settings: Settings, way: str = "on the loop"
) -> Iterator[tuple[StreamBroker, Actor[[], None], threading.Event, list[int]]]:
    """A worker with the actor `waits`, in its way; the gate for which that waits, and the begun attempts."""
    gate, inside = threading.Event(), list[int]()
    with stream_broker(settings, lease=timedelta(seconds=1)) as broker:
        if way == "on threads":
            broker.add_middleware(Blocks())

        @actor(concurrency=2 if way == "in its own place" else None)
        async def waits() -> None:
            inside.append(1)
            while not gate.is_set():  # noqa: ASYNC110 - the test's thread opens it
                await asyncio.sleep(0.005)

        with working(broker):
            wait_until(lambda: broker.session is not None and broker.session.standing.lease_held)
            yield broker, waits, gate, inside


@pytest.mark.parametrize(
    ("stays", "goes"),
    [("on threads", "on the loop"), ("on the loop", "in its own place"), ("on the loop", "on threads")],
)
def test_a_process_goes_on_with_messages_after_another_that_ran_them_otherwise_is_gone(
    settings: Settings, valkey: EmbeddedServer, stays: str, goes: str
) -> None:
    """As after a new version was tried and taken back: nothing waits for a runner that no process has."""
    with process(settings, stays) as (broker, waits, gate, _):
        gate.set()
        before = waits.send()
        wait_until(lambda: state_of(broker.client, before.message_id) == "completed")
        with process(settings, goes):
            pass
        after = waits.send()
        wait_until(lambda: state_of(broker.client, after.message_id) == "completed")


def test_a_message_whose_actor_and_runner_went_with_their_last_process_is_found_by_another(
    settings: Settings, valkey: EmbeddedServer
) -> None:
    """As after an actor was removed: a worker that does not know it tells so, instead of nobody looking there."""
    with process(settings, "in its own place") as (broker, waits, _, _):
        message = waits.message()
    with stream_broker(settings, lease=timedelta(seconds=1)) as broker:
        sent = broker.enqueue(message)
        assert broker.client.xlen(broker.client.namespace.stream("default", "normal", "loop.waits")) == 1

        @actor
        def another() -> None:
            """Gives the worker the queue."""

        with working(broker):
            wait_until(lambda: state_of(broker.client, sent.message_id) == "delayed")
        assert stored(broker.client, sent.message_id).waits_for == "no worker here knows actor waits"


def test_a_message_that_its_sender_expected_on_a_loop_is_found_by_workers_without_one(
    settings: Settings, valkey: EmbeddedServer
) -> None:
    """The first worker has neither the actor nor a loop: it meets the message as any other that it cannot run."""
    with stream_broker(settings) as sender:

        @actor
        async def elsewhere() -> None:
            """Is known to its sender alone."""

        sent = elsewhere.send()
        assert sender.client.xlen(sender.client.namespace.stream("default", "normal", LOOP)) == 1
    with stream_broker(settings, lease=timedelta(seconds=1)) as broker:

        @actor
        def another() -> None:
            """Gives the worker the queue."""

        with working(broker):
            wait_until(lambda: state_of(broker.client, sent.message_id) == "delayed")
