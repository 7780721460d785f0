"""Errors of services that are unlike others: the attempt has failed, on both runners."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import actor
from worker.broker.streams import StreamBroker
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """An error that is a frozen dataclass."""

    code: int


async def on_the_loop() -> None:
    """Fails on the shared loop."""
    raise Frozen(1)


def on_a_thread() -> None:
    """Fails on a worker thread."""
    raise Frozen(1)


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker that retries at once."""
    with stream_broker(settings, **AT_ONCE) as made:
        yield made


@pytest.mark.parametrize("function", [on_the_loop, on_a_thread])
def test_an_error_that_is_frozen_fails_its_attempts(broker: StreamBroker, function: Callable[[], Any]) -> None:
    """It is retried, and told as what it is."""
    sent = actor(max_retries=1)(function).send()
    with working(broker):
        wait_until(lambda: stored(broker.client, sent.message_id).state == "dead")
    found = stored(broker.client, sent.message_id)
    assert [event.state for event in found.events] == ["started", "failed", "started", "failed"]
    assert found.last_error == "Frozen: 1"
