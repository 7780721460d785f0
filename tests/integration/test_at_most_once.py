"""Actors that run at most once, on a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import dramatiq
import pytest

from tests.support.brokers import stream_broker
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import actor
from worker.broker.streams import StreamBroker
from worker.errors import LeaseTaken, RetryLater
from worker.operations.actions import replay
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker whose workers interrupt at once when they are told to end."""
    with stream_broker(settings, grace=timedelta(0), min_backoff=timedelta(0)) as made:
        yield made


@pytest.mark.parametrize(
    "error",
    [
        ValueError("always"),
        RetryLater(0),
        LeaseTaken("disk", "another", timedelta(0)),
        dramatiq.Retry("again", delay=0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_of_it_makes_a_dead_letter(broker: StreamBroker, error: Exception) -> None:
    """Also one that asks for a later time, and with a budget that the message brings."""
    runs: list[int] = []

    @actor(at_most_once=True)
    async def charge() -> None:
        runs.append(1)
        raise error

    sent = charge.send_with_options(max_retries=5)
    with working(broker):
        wait_until(lambda: stored(broker.client, sent.message_id).state == "dead")
    assert runs == [1]


def test_its_body_runs_only_after_the_server_knows_that_it_began(broker: StreamBroker) -> None:
    """What the server says of the message at the body's first line is that it runs."""
    seen: list[tuple[str, int]] = []

    @actor(at_most_once=True)
    def charge() -> None:
        found = stored(broker.client, sent.message_id)
        seen.append((found.state, found.attempts))

    sent = charge.send()
    with working(broker):
        wait_until(lambda: stored(broker.client, sent.message_id).state == "completed")
    assert seen == [("running", 1)]


def test_it_does_not_run_where_the_server_refuses_its_begin(
    broker: StreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process took the message between the delivery and the begin: it runs there, and not here."""
    runs: list[int] = []

    @actor(at_most_once=True)
    def charge() -> None:
        runs.append(1)

    sent = charge.send()
    moved = threading.Event()
    with working(broker):
        wait_until(lambda: broker.session is not None)
        session = broker.session
        assert session is not None
        take = session._committer.take

        def late(commit: object) -> None:
            if not moved.is_set():
                key = f"{{worker}}:m:{sent.message_id}"
                record = broker.client.get(key)
                assert isinstance(record, bytes)
                # As it is after another process has been given it.
                fields = record.split(b"\t")
                fields[2] = b"9"
                broker.client.set(key, b"\t".join(fields))
                moved.set()
            take(commit)  # type: ignore[arg-type]

        monkeypatch.setattr(session._committer, "take", late)
        wait_until(lambda: moved.is_set() and len(session.holdings) == 0)
        session.flush(5)
    assert runs == []
    assert stored(broker.client, sent.message_id).state == "queued"


def test_a_shutdown_that_interrupts_it_makes_a_dead_letter(broker: StreamBroker) -> None:
    """No second run, and a person may still replay it."""
    begun = threading.Event()
    runs: list[int] = []

    @actor(at_most_once=True)
    def charge() -> None:
        runs.append(1)
        begun.set()
        wait_until(lambda: len(runs) > 1)

    sent = charge.send()
    with working(broker):
        assert begun.wait(30)
    found = stored(broker.client, sent.message_id)
    assert (found.state, [event.state.value for event in found.events]) == ("dead", ["started", "cancelled"])
    assert found.events[-1].text == "dead letter"
    assert replay(broker.client, [sent.message_id], by="ann").done == (sent.message_id,)
    with working(broker):
        wait_until(lambda: stored(broker.client, sent.message_id).state == "completed")
    assert runs == [1, 1]
