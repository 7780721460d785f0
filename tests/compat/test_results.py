"""Whoever waits for the result of a message that a person cancels hears of it, and is not left to wait."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware
from dramatiq.results import ResultFailure

from tests.compat.conftest import Brokers
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import actor, current_attempt
from worker.history.query import ask, one_message
from worker.operations.actions import cancel
from worker.server.client import RedisClient


def test_a_cancelled_attempt_has_a_failure_as_its_result(brokers: Brokers, client: RedisClient) -> None:
    """Stored by its worker, also for those who ask without waiting."""
    began: list[int] = []
    broker = brokers.ours()

    @actor(store_results=True)
    async def waits() -> None:
        began.append(1)
        await asyncio.sleep(60)

    with working(broker):
        message = waits.send()
        wait_until(lambda: began == [1])
        cancel(client, message.message_id, by="Ada")
        with pytest.raises(ResultFailure, match="Cancelled"):
            message.get_result(block=True, timeout=20_000)


def test_a_message_that_is_cancelled_before_it_begins_has_a_failure_too(brokers: Brokers, client: RedisClient) -> None:
    """No worker has it: whoever waits looks at its state."""
    brokers.ours()

    @dramatiq.actor(store_results=True)
    def greet() -> None: ...

    message = greet.send_with_options(delay=60_000)
    cancel(client, message.message_id, by="Ada")
    with pytest.raises(ResultFailure, match="was cancelled"):
        message.get_result(block=True, timeout=20_000)


def test_a_retried_message_on_the_loop_brings_its_traceback(brokers: Brokers, client: RedisClient) -> None:
    """As on a thread: middleware finds the error as the one that is handled, and the stored message has it, masked."""
    seen: list[str] = []

    class Looks(Middleware):
        runs_on_loop = True

        def after_process_message(
            self, broker: dramatiq.Broker, message: Any, *, result: object = None, exception: object = None
        ) -> None:
            if exception is not None:
                seen.append(traceback.format_exc())

    broker = brokers.ours()
    broker.add_middleware(Looks())

    @actor(max_retries=1)
    async def fails() -> None:
        attempt = current_attempt()
        if attempt is not None and attempt.number == 1:
            raise ValueError("no answer from redis://me:hunter2@db/0")

    with working(broker):
        message = fails.send()
        broker.join("default", timeout=20_000)
    [trace] = seen
    assert trace.endswith("ValueError: no answer from redis://me:hunter2@db/0\n")
    assert "in _tell_error" not in trace
    found = ask(client, one_message(message.message_id))
    assert found is not None
    assert b"in fails" in found.payload
    assert b"redis://me:***@db/0" in found.payload
    assert b"hunter2" not in found.payload
