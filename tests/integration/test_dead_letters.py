"""Dead letters on a real server: read, enqueued again, removed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import dramatiq
import pytest
import redis

from tests.waiting import wait_until
from worker import Fatal, create_broker
from worker.broker.dead_letters import dead_letters, purge, replay
from worker.broker.streams import StreamBroker
from worker.embedded import EmbeddedServer
from worker.errors import MessageRefused
from worker.history.query import count_states, read_message
from worker.settings import Settings


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamBroker]:
    """A broker whose failed messages are retried at once, and once."""
    quick = {"min_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "max_retries": 1}
    made = create_broker(settings.model_copy(update=quick))
    assert isinstance(made, StreamBroker)
    monkeypatch.setattr("dramatiq.broker.global_broker", made)
    yield made
    made.close()


@pytest.fixture
def mended() -> threading.Event:
    """Set when what made messages fail is mended."""
    return threading.Event()


@pytest.fixture
def failing(broker: StreamBroker, mended: threading.Event) -> Iterator[dramatiq.Actor[[str], None]]:
    """An actor that fails until it is mended, with a worker that runs it."""

    @dramatiq.actor
    def fails(name: str) -> None:
        if not mended.is_set():
            raise ValueError(f"not yet, {name}")

    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    yield fails
    worker.stop()


def dead(client: redis.Redis, failing: dramatiq.Actor[[str], None]) -> str:
    """A message that has become a dead letter; its id."""
    message_id = failing.send("you").message_id
    wait_until(lambda: message_id in [one.id for one in dead_letters(client)], 20)
    return message_id


def test_a_dead_letter_tells_all_that_happened(client: redis.Redis, failing: dramatiq.Actor[[str], None]) -> None:
    """The message, and each attempt with its error and traceback."""
    message_id = dead(client, failing)
    [letter] = dead_letters(client)
    assert (letter.id, letter.actor, letter.queue, letter.attempts) == (message_id, "fails", "default", 2)
    assert b'"args":["you"]' in letter.payload
    errors = [event.error for event in letter.events if event.error is not None]
    assert [error.text for error in errors] == ["not yet, you"] * 2
    assert all("in fails" in error.traceback for error in errors)


def test_a_replayed_dead_letter_runs_again_with_a_new_retry_budget(
    client: redis.Redis, failing: dramatiq.Actor[[str], None], mended: threading.Event
) -> None:
    """It keeps its id, and its history goes on."""
    message_id = dead(client, failing)
    assert replay(client, message_id)
    wait_until(lambda: count_states(client) == {"dead": 1}, 20)
    failed_again = read_message(client, message_id)
    assert failed_again is not None
    assert failed_again.attempts == 4
    mended.set()
    assert replay(client, message_id)
    wait_until(lambda: count_states(client) == {"completed": 1}, 20)
    stored = read_message(client, message_id)
    assert stored is not None
    assert [event.text for event in stored.events if event.state == "progress"] == ["replayed", "replayed"]
    assert stored.events[-1].attempt == 5
    assert len({event.id for event in stored.events}) == len(stored.events)


def test_of_many_who_replay_a_dead_letter_one_does(
    client: redis.Redis, failing: dramatiq.Actor[[str], None], mended: threading.Event
) -> None:
    """It runs once."""
    message_id = dead(client, failing)
    mended.set()
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(replay(client, message_id))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    wait_until(lambda: count_states(client) == {"completed": 1}, 20)
    stored = read_message(client, message_id)
    assert stored is not None
    assert stored.attempts == 3


def test_a_purged_dead_letter_is_gone_with_all_that_points_to_it(
    client: redis.Redis, failing: dramatiq.Actor[[str], None]
) -> None:
    """Once; what is no dead letter stays."""
    message_id = dead(client, failing)
    assert purge(client, message_id)
    assert not purge(client, message_id)
    assert not replay(client, message_id)
    assert read_message(client, message_id) is None
    assert list(dead_letters(client)) == []
    assert count_states(client) == {}


def test_what_is_no_dead_letter_is_neither_replayed_nor_purged(client: redis.Redis, broker: StreamBroker) -> None:
    """A message that waits goes on waiting."""

    @dramatiq.actor
    def idle() -> None: ...

    message_id = idle.send().message_id
    assert not replay(client, message_id)
    assert not purge(client, message_id)
    assert count_states(client) == {"queued": 1}


def test_an_entry_that_could_not_be_read_is_purged_and_not_replayed(
    client: redis.Redis, failing: dramatiq.Actor[[str], None]
) -> None:
    """Nobody can run it."""
    client.xadd("worker:q:default:normal", {"something": "else"})
    wait_until(lambda: list(dead_letters(client)), 20)
    [letter] = dead_letters(client)
    with pytest.raises(MessageRefused, match="purge it"):
        replay(client, letter.id)
    assert purge(client, letter.id)
    assert list(dead_letters(client)) == []


def test_fatal_is_a_dead_letter_at_once(client: redis.Redis, broker: StreamBroker) -> None:
    """After one attempt."""

    @dramatiq.actor
    def hopeless() -> None:
        raise Fatal("never")

    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        hopeless.send()
        wait_until(lambda: [one.attempts for one in dead_letters(client)] == [1], 20)
    finally:
        worker.stop()
