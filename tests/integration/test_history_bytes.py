"""The bytes of the history: its bounds, what goes and in which order, and where it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import dramatiq
import pytest
import structlog.testing

from tests.support.brokers import stream_broker
from tests.support.indexes import indexes_agree
from tests.support.stored import state_of, stored
from tests.support.waiting import wait_until
from tests.support.web import serving
from tests.support.workers import working
from worker.broker.streams import StreamBroker
from worker.errors import Fatal
from worker.history.overview import history_size
from worker.history.query import ask, state_counts
from worker.operations.actions import replay
from worker.operations.doctor import Severity, examine
from worker.server.client import RedisClient
from worker.settings import Settings
from worker.web.app import create_app

LARGE = "x" * 20_000
ROOM = 100_000
SHORT_LEASE = timedelta(seconds=1)


@pytest.fixture
def bounded(settings: Settings) -> Settings:
    """Settings with little room for what has ended."""
    return settings.model_copy(update={"history_bytes": ROOM, "dead_bytes": ROOM, "lease": SHORT_LEASE})


@pytest.fixture
def broker(bounded: Settings, client: RedisClient) -> Iterator[StreamBroker]:
    """A broker with these bounds."""
    with stream_broker(bounded) as made:
        yield made


def declare_note() -> dramatiq.Actor[..., Any]:
    @dramatiq.actor(max_retries=0)
    def note(text: str, fails: bool = False) -> None:
        if fails:
            raise Fatal("it never works")

    return note


def run_all(broker: StreamBroker, client: RedisClient, messages: list[dramatiq.Message[Any]]) -> None:
    """Sends these one after another, and waits until all have ended."""
    with working(broker):
        for number, one in enumerate(messages, start=1):
            broker.enqueue(one)
            wait_until(partial(has_ended, client, number))


def has_ended(client: RedisClient, number: int) -> bool:
    return sum(ask(client, state_counts()).get(state, 0) for state in ("completed", "dead")) >= number


def has_completed(client: RedisClient, message_id: str) -> bool:
    return state_of(client, message_id) == "completed"


def test_the_oldest_lose_their_arguments_first(broker: StreamBroker, bounded: Settings, client: RedisClient) -> None:
    """The newest keep theirs, no message goes as long as there are arguments that can, and the bytes stay in bounds."""
    note = declare_note()
    messages = [note.message(LARGE) for _ in range(20)]
    run_all(broker, client, messages)
    kept = [stored(client, one.message_id) for one in messages]
    assert [one.arguments_dropped for one in kept] == [True] * 16 + [False] * 4
    assert all(one.arguments == "" and one.enqueued is not None for one in kept[:16])
    assert all(one.arguments == f'"{LARGE}"' for one in kept[16:])
    assert ask(client, history_size(bounded)).bytes <= ROOM
    indexes_agree(client)


def test_then_the_oldest_messages_go(broker: StreamBroker, bounded: Settings, client: RedisClient) -> None:
    """When none has arguments any more that can go."""
    note = declare_note()
    messages = [note.message("") for _ in range(300)]
    with working(broker):
        for one in messages:
            broker.enqueue(one)
        wait_until(lambda: not ask(client, state_counts()).keys() & {"queued", "running"})
    kept = indexes_agree(client)
    assert 0 < len(kept) < 300
    assert set(kept) == {one.message_id for one in messages[-len(kept) :]}
    assert ask(client, history_size(bounded)).bytes <= ROOM


def test_dead_letters_keep_their_arguments_and_go_only_after_it_was_told(
    broker: StreamBroker, bounded: Settings, client: RedisClient
) -> None:
    """They have a bound of their own; the log, the doctor and the state of the whole say that it is near."""
    note = declare_note()
    messages = [note.message(LARGE, fails=True) for _ in range(8)]
    with structlog.testing.capture_logs() as logged:
        run_all(broker, client, messages)
        assert ask(client, state_counts()) == {"dead": 8}
        size = ask(client, history_size(bounded))
        assert size.dead_bytes > ROOM
        assert size.dead_letters_will_go
        finding = next(one for one in examine(client, bounded) if one.name == "history")
        assert (finding.severity, "WORKER_DEAD_BYTES" in finding.remedy) == (Severity.WARNING, True)
        with working(broker):
            wait_until(lambda: ask(client, history_size(bounded)).dead_bytes <= ROOM)
    assert any("dead letters near WORKER_DEAD_BYTES" in one["event"] for one in logged)
    left = indexes_agree(client)
    assert set(left) == {one.message_id for one in messages[-4:]}
    assert all(one.arguments for one in left.values())


def test_what_belongs_to_an_unfinished_group_stays(broker: StreamBroker, client: RedisClient) -> None:
    """Until the last member has ended; then its arguments go like those of others."""
    note, go_on = declare_note(), threading.Event()

    @dramatiq.actor
    def hold() -> None:
        assert go_on.wait(60)

    @dramatiq.actor
    def done() -> None:
        pass

    member = note.message(LARGE)
    group = dramatiq.group([member, hold.message()], broker=broker)
    group.add_completion_callback(done.message())
    with working(broker, threads=3):
        group.run()
        wait_until(lambda: state_of(client, member.message_id) == "completed")
        others = [note.message(LARGE) for _ in range(10)]
        for one in others:
            broker.enqueue(one)
            wait_until(partial(has_completed, client, one.message_id))
        assert not stored(client, member.message_id).arguments_dropped
        assert stored(client, others[0].message_id).arguments_dropped
        go_on.set()
        wait_until(lambda: ask(client, state_counts())["completed"] == 13)
    indexes_agree(client)


def test_a_bound_that_is_set_later_is_reached_by_a_worker_without_work(
    settings: Settings, bounded: Settings, client: RedisClient
) -> None:
    """In steps of its heartbeat."""
    with stream_broker(settings) as before:
        note = declare_note()
        run_all(before, client, [note.message(LARGE) for _ in range(12)])
    assert ask(client, history_size(bounded)).bytes > 2 * ROOM
    with stream_broker(bounded) as after:
        declare_note()
        with working(after):
            wait_until(lambda: ask(client, history_size(bounded)).bytes <= ROOM)
    assert len(indexes_agree(client)) == 12


def test_a_message_that_is_sent_again_has_its_arguments_again(broker: StreamBroker, client: RedisClient) -> None:
    """Under the same id; and it can lose them again."""
    note = declare_note()
    first = note.message(LARGE)
    run_all(broker, client, [first, *(note.message(LARGE) for _ in range(8))])
    assert stored(client, first.message_id).arguments_dropped
    broker.enqueue(first)
    assert not stored(client, first.message_id).arguments_dropped
    with working(broker):
        wait_until(lambda: state_of(client, first.message_id) == "completed")
    indexes_agree(client)


def test_what_has_no_arguments_any_more_says_so_everywhere(
    broker: StreamBroker, bounded: Settings, client: RedisClient
) -> None:
    """On its page, in the API, and in the line that refuses to replay it; the metrics tell the bytes and the bounds."""
    note = declare_note()
    messages = [note.message(LARGE) for _ in range(8)]
    run_all(broker, client, messages)
    first = messages[0].message_id
    refused = replay(client, [first]).refused
    assert refused == {first: "completed, and its arguments are not kept any more: send it anew"}
    with serving(create_app(bounded.model_copy(update={"web_show_arguments": True}))) as web:
        told: dict[str, Any] = web.get(f"/api/messages/{first}").json()
        page = web.get(f"/messages/{first}").text
        metrics = web.get("/metrics").text
    assert (told["arguments"], told["arguments_dropped"]) == ("", True)
    assert "not kept any more" in page
    size = ask(client, history_size(bounded))
    assert f'worker_history_bytes{{kind="ended"}} {float(size.bytes)}' in metrics
    assert f'worker_history_limit_bytes{{kind="dead"}} {float(ROOM)}' in metrics


@pytest.mark.own_server
def test_what_has_ended_does_not_fill_the_server(settings: Settings, client: RedisClient) -> None:
    """With 60 MB, 300 messages of 250 KB that end one after another are all taken, though they are 75 MB."""
    client.config_set("maxmemory", "60mb")
    with stream_broker(settings, history_bytes=20_000_000, max_message_bytes=300_000) as broker:
        note = declare_note()
        with working(broker):
            for _ in range(300):
                note.send("x" * 250_000)
                wait_until(lambda: ask(client, state_counts()).get("queued", 0) < 10)
            wait_until(lambda: ask(client, state_counts()) == {"completed": 300})
        size: int = client.info("memory")["used_memory"]
    assert size < 40_000_000
