"""An attempt leaves nothing behind that only the collector could free, whichever way it ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import stream_broker
from tests.support.stored import state_of
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import (
    Fatal,
    NoContentFound,
    ProcessingStatusContext,
    actor,
    loop_resource,
    run_async_in_new_loop,
    run_in_thread_pool,
)
from worker.attempts.run import current_run
from worker.broker.streams import StreamBroker
from worker.history.query import ask, one_message
from worker.operations.actions import cancel
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

LOOPS = ["new", "shared"]


class Held:
    """What a failing frame holds."""


held: list[weakref.ref[Any]] = []
started = threading.Event()


def hold() -> Held:
    """An object for the caller's frame, of which the test keeps no more than a weak reference."""
    one = Held()
    held.append(weakref.ref(one))
    return one


WAYS = ["error", "fatal", "exits", "cancels itself", "time-out", "pool", "resource", "group", "group of skips"]


async def fails_in(way: str) -> None:
    """Fails, with an object in its frame."""
    kept = hold()
    if way == "error":
        await asyncio.sleep(0)
        raise ValueError("always")
    if way == "skip":
        raise NoContentFound("nothing there")
    if way == "fatal":
        raise Fatal("never")
    if way == "exits":
        raise SystemExit(3)
    if way == "cancels itself":
        raise asyncio.CancelledError
    if way == "time-out":
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    if way == "pool":
        await run_in_thread_pool(fails_in_the_pool)
    if way == "resource":
        await broken()
    if way.startswith("group"):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails_in("skip" if way == "group of skips" else "error"))
    started.set()
    await asyncio.Event().wait()
    del kept


def fails_in_the_pool() -> None:
    kept = hold()
    raise ValueError(f"always {type(kept).__name__}")


@loop_resource
async def broken() -> AsyncIterator[None]:
    kept = hold()
    if held:
        raise ValueError(f"always {type(kept).__name__}")
    yield


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker with the usual settings."""
    with stream_broker(settings) as made:
        yield made


@contextlib.contextmanager
def without_the_collector() -> Iterator[None]:
    """Nothing is collected in the block, and no log record keeps an error."""
    gc.collect()
    gc.disable()
    logging.disable()
    held.clear()
    started.clear()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


def fail_and_look(broker: StreamBroker, message: dramatiq.Message[Any]) -> None:
    """Waits until the message's only attempt has failed and is stored, and looks whether its frames are gone."""

    def has_ended() -> bool:
        found = ask(broker.client, one_message(message.message_id))
        return found is not None and found.state in ("cancelled", "dead", "skipped")

    wait_until(has_ended)
    assert held
    wait_until(lambda: not any(one() for one in held), timeout=2)


def _is_completed(broker: StreamBroker, message: dramatiq.Message[Any]) -> bool:
    return state_of(broker.client, message.message_id) == "completed"


@pytest.mark.parametrize("kind", ["loop", "bridge", "sync"])
def test_an_attempt_that_ends_well_leaves_no_cycle(broker: StreamBroker, kind: str) -> None:
    """Its message is gone when its end is stored and its runner has another one: the collector has nothing to do."""

    def keep() -> None:
        run = current_run.get()
        assert run is not None
        held.append(weakref.ref(run.message))

    async def keeps() -> None:
        keep()

    made = actor(keep) if kind == "sync" else actor(loop="shared" if kind == "loop" else "new")(keeps)
    with working(broker, threads=1), without_the_collector():
        # With the first one the server learns the script that stores it: the error that says so holds it.
        for _ in range(3):
            sent = made.send()
            wait_until(partial(_is_completed, broker, sent))
        wait_until(lambda: held[1]() is None)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", WAYS)
def test_a_failed_coroutine_leaves_no_cycle(broker: StreamBroker, loop: Any, way: str) -> None:
    """What its frames held is gone as soon as its attempt has ended."""

    @actor(loop=loop, max_retries=0)
    async def fails() -> None:
        await fails_in(way)

    with working(broker, threads=1), without_the_collector():
        fail_and_look(broker, fails.send())


@pytest.mark.parametrize("loop", LOOPS)
def test_an_interrupted_coroutine_leaves_no_cycle(broker: StreamBroker, loop: Any) -> None:
    """Whether a time limit interrupts it or a person cancels it."""

    @actor(loop=loop, max_retries=0, time_limit="50ms")
    async def is_limited() -> None:
        await fails_in("interrupt")

    @actor(loop=loop)
    async def is_cancelled() -> None:
        await fails_in("interrupt")

    with working(broker, threads=1), without_the_collector():
        fail_and_look(broker, is_limited.send())
        started.clear()
        message = is_cancelled.send()
        assert started.wait(30)
        assert cancel(broker.client, [message.message_id]).done
        fail_and_look(broker, message)


@pytest.mark.parametrize("way", ["error", "chained", "bridge", "interrupt"])
def test_a_failed_sync_actor_leaves_no_cycle(broker: StreamBroker, way: str) -> None:
    """With its own error, one that it chained, one of the bridge, or an interrupt."""

    @dramatiq.actor(broker=broker, max_retries=0, time_limit=100 if way == "interrupt" else 60_000)
    def fails() -> None:
        kept = hold()
        with ProcessingStatusContext("fails"):
            if way == "bridge":
                run_async_in_new_loop(fails_in("error"))
            while way == "interrupt":
                time.sleep(0.01)
            try:
                raise ValueError(f"always {type(kept).__name__}")
            except ValueError as error:
                if way == "chained":
                    raise RuntimeError("always") from error
                raise

    with working(broker, threads=1), without_the_collector():
        fail_and_look(broker, fails.send())
