"""Unique keys: until a message begins, or until it has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.waiting import wait_until
from tests.support.workers import idle_worker
from worker import Sent, actor, current_attempt
from worker.broker.streams import StreamBroker
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

JOIN_MS = 60_000
HOUR = timedelta(hours=1)


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker whose failed messages are retried at once, and once."""
    with stream_broker(settings, **AT_ONCE, max_retries=1) as made:
        yield made


@pytest.fixture
def worker(broker: StreamBroker) -> Iterator[dramatiq.Worker]:
    """A worker of one thread that is to be started; it is stopped with the test."""
    with idle_worker(broker) as made:
        yield made


def key_of(broker: StreamBroker) -> bytes | None:
    """The id of the message that holds the key `refresh`, or None."""
    found: Any = broker.client.get("{worker}:u:refresh")
    return None if found is None else bytes(found)


def test_a_change_that_comes_while_its_refresh_runs_is_refreshed_too(
    broker: StreamBroker, worker: dramatiq.Worker
) -> None:
    """With `until="start"`: one that waits takes all changes before its begin, and none after it."""
    read, began, go_on, changes = [], threading.Event(), threading.Event(), ["a"]

    @actor
    def refresh() -> None:
        assert key_of(broker) != _id_here()
        read.append(list(changes))
        began.set()
        go_on.wait(60)

    def changed() -> Sent[None]:
        return refresh.send_unique(key="refresh", until="start")

    first, second = changed(), changed()
    assert (first.is_new, second.is_new, second.message_id) == (True, False, first.message_id)
    worker.start()
    assert began.wait(60)
    changes.append("b")
    third, fourth = changed(), changed()
    assert (third.is_new, fourth.is_new, fourth.message_id) == (True, False, third.message_id)
    go_on.set()
    broker.join("default", timeout=JOIN_MS)
    assert read == [["a"], ["a", "b"]]
    assert key_of(broker) is None


def test_until_its_end_a_message_keeps_its_key_while_it_runs(broker: StreamBroker, worker: dramatiq.Worker) -> None:
    """The default: through its retries."""
    answers: list[bool] = []

    @actor
    def once_at_a_time() -> None:
        answers.append(once_at_a_time.send_unique(key="refresh", delay=HOUR).is_new)
        if len(answers) == 1:
            raise ValueError

    once_at_a_time.send_unique(key="refresh", until="end")
    worker.start()
    broker.join("default", timeout=JOIN_MS)
    assert answers == [False, False]
    assert key_of(broker) is None


def test_a_retry_takes_no_key_again(broker: StreamBroker, worker: dramatiq.Worker) -> None:
    """Neither from the message that has it now, nor when it is free."""
    held: list[bytes | None] = []
    later: list[Sent[None]] = []

    @actor
    def refresh(what: str) -> None:
        held.append(key_of(broker))
        if what == "first" and len(held) == 1:
            raise ValueError
        if what == "first" and len(held) == 2:
            later.append(refresh.send_unique(key="refresh", until="start", args=("second",), delay=HOUR))

    refresh.send_unique(key="refresh", until="start", args=("first",))
    worker.start()
    wait_until(lambda: later)
    worker.stop()
    assert held == [None, None]
    assert key_of(broker) == later[0].message_id.encode()


def test_a_key_lasts_from_when_its_message_is_due(broker: StreamBroker) -> None:
    """One that is due in two hours holds its key until then, and as long after it as any."""

    @actor
    def refresh() -> None: ...

    first = refresh.send_unique(key="refresh", ttl=HOUR, delay=2 * HOUR)
    left: Any = broker.client.pttl("{worker}:u:refresh")
    assert left / 3_600_000 == pytest.approx(3, abs=0.1)
    assert refresh.send_unique(key="refresh").message_id == first.message_id
    refresh.send_unique(key="other", ttl=60)
    left = broker.client.pttl("{worker}:u:other")
    assert left / 1000 == pytest.approx(60, abs=30)


def test_until_is_start_or_end(broker: StreamBroker) -> None:
    """Anything else is refused, with what to write."""

    @actor
    def refresh() -> None: ...

    wrong: Any = "begin"
    with pytest.raises(ValueError, match="write 'start' or 'end'"):
        refresh.send_unique(key="refresh", until=wrong)


def _id_here() -> bytes:
    attempt = current_attempt()
    assert attempt is not None
    return attempt.message_id.encode()
