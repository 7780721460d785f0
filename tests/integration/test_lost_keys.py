"""What a server has evicted, or somebody has deleted, besides messages: it is made good, and told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import dramatiq
import pytest
import structlog.testing

from tests.support.waiting import wait_until
from worker.broker import create_broker
from worker.history.filters import MessageFilter
from worker.history.overview import queues
from worker.history.query import ask, count_messages, newest_failures, one_message, state_counts
from worker.server.client import RedisClient
from worker.settings import Settings

STREAM = "{worker}:q:default:normal:thread"


@pytest.fixture
def broker(settings: Settings, client: RedisClient) -> Iterator[dramatiq.Broker]:
    """A broker whose worker looks for what is gone every second, and when it begins."""
    made = create_broker(settings.model_copy(update={"lease": timedelta(seconds=1)}))
    dramatiq.set_broker(made)
    yield made
    made.close()


@contextlib.contextmanager
def working(broker: dramatiq.Broker) -> Iterator[None]:
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def test_messages_whose_places_are_gone_get_them_back(broker: dramatiq.Broker, client: RedisClient) -> None:
    """Those that wait in a stream that was deleted, and those that are delayed; they run, and the log names them."""
    ran: list[str] = []

    @dramatiq.actor
    def note(name: str) -> None:
        ran.append(name)

    lost = [note.send(name) for name in "abc"]
    lost.append(note.send_with_options(args=("late",), delay=1))
    client.delete(STREAM, "{worker}:due")
    note.send("kept")
    with structlog.testing.capture_logs() as logged, working(broker):
        wait_until(lambda: ask(client, state_counts()) == {"completed": 5})
    assert sorted(ran) == ["a", "b", "c", "kept", "late"]
    (told,) = [one for one in logged if "lost their places" in one["event"]]
    assert (told["count"], sorted(told["ids"])) == (4, sorted(one.message_id for one in lost))


def test_an_attempt_whose_entry_is_gone_is_lost_and_its_message_runs_again(
    broker: dramatiq.Broker, client: RedisClient
) -> None:
    """Nobody could take it over if its worker died; the former attempt can store nothing any more."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    @dramatiq.actor
    def hold() -> None:
        begun.release()
        assert go_on.wait(60)

    with working(broker):
        message = hold.send()
        assert begun.acquire(timeout=60)
        wait_until(lambda: ask(client, state_counts()) == {"running": 1})
        client.delete(*client.keys("{worker}:q:*"))
        assert begun.acquire(timeout=60)
        go_on.set()
        wait_until(lambda: ask(client, state_counts()) == {"completed": 1})
    found = ask(client, one_message(message.message_id))
    assert found is not None
    assert [event.state.value for event in found.events][-3:] == ["lost", "started", "completed"]


def test_counts_and_numbers_are_made_right(broker: dramatiq.Broker, client: RedisClient) -> None:
    """Messages that come later get numbers of their own, and no count is less than nothing for ever."""

    @dramatiq.actor
    def note() -> None: ...

    for _ in range(3):
        note.send()
    note.send_with_options(delay=60_000)
    client.delete("{worker}:seq", "{worker}:states", "{worker}:depths", "{worker}:segments", "{worker}:queues")
    for _ in range(2):
        note.send()
    note.send_with_options(delay=60_000)
    with working(broker):
        wait_until(lambda: ask(client, state_counts()) == {"completed": 5, "delayed": 2})
        (queue,) = ask(client, queues())
        assert (queue.queued, queue.delayed, queue.running) == (0, 2, 0)
        assert count_messages(client, MessageFilter()) == 7
        client.delete("{worker}:queues")
        wait_until(lambda: client.smembers("{worker}:queues") == {b"default"})


def test_a_message_whose_number_is_not_known_is_not_called_gone(broker: dramatiq.Broker, client: RedisClient) -> None:
    """It is there, and runs: only the list that names it was lost."""

    @dramatiq.actor
    def note() -> None: ...

    note.send()
    client.delete("{worker}:x:0:ids")
    with structlog.testing.capture_logs() as logged, working(broker):
        wait_until(lambda: ask(client, state_counts()) == {"completed": 1})
    assert [one for one in logged if "gone from the server" in one["event"]] == []


def has_died(client: RedisClient, message_id: str) -> bool:
    found = ask(client, one_message(message_id))
    return found is not None and found.state == "dead"


def test_what_failed_last_is_found_again(broker: dramatiq.Broker, client: RedisClient) -> None:
    """Where the order of failures is gone, it is made anew of when the messages became dead letters."""

    @dramatiq.actor(max_retries=0)
    def fail(name: str) -> None:
        raise ValueError(name)

    with working(broker):
        for name in "abc":
            sent = fail.send(name).message_id
            wait_until(partial(has_died, client, sent))
        before = ask(client, newest_failures()).messages
        client.delete("{worker}:failures")
        wait_until(lambda: ask(client, newest_failures()).messages == before)
    assert [one.arguments for one in before] == ['"c"', '"b"', '"a"']
