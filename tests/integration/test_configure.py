"""`configure`: one way to enqueue with options, sync and async, in every combination."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.stored import stored
from tests.support.workers import idle_worker
from worker import Sent, actor
from worker.broker.actor import Actor
from worker.broker.configured import Configured
from worker.broker.envelope import decode
from worker.broker.in_loop import SendInLoopWarning
from worker.broker.streams import StreamBroker
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

IN_A_DAY = datetime.now(timezone(timedelta(hours=5))) + timedelta(days=1)

OPTIONS: dict[str, Any] = {
    "key": "merge:42",
    "delay": "1h",
    "at": IN_A_DAY,
    "priority": -1,
    "queue_name": "slow",
    "message_id": "row 7",
    "time_limit": timedelta(minutes=2),
    "max_retries": 3,
}

WAYS: dict[str, Callable[[Configured[Any, Any], Actor[Any, Any]], Sent[None]]] = {
    "send": lambda made, _: made.send(1),
    "asend": lambda made, _: _wait(made.asend(1)),
    "send_many": lambda made, one: made.send_many([one.message(1)])[0],
    "asend_many": lambda made, one: _wait(made.asend_many([one.message(1)]))[0],
}


def _wait(work: Awaitable[Any]) -> Any:
    async def waits() -> Any:
        return await work

    return asyncio.run(waits())


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker on streams."""
    with stream_broker(settings, **AT_ONCE) as made:
        yield made


@pytest.fixture
def one(broker: StreamBroker) -> Actor[[int], None]:
    """An actor."""

    @actor(priority=5)
    def one(number: int) -> None: ...

    return one


@pytest.mark.parametrize("way", WAYS)
def test_every_combination_of_options_is_sent_in_every_way(
    broker: StreamBroker, one: Actor[[int], None], way: str
) -> None:
    """The server has what each of them says."""
    for size in (0, 1, 2, len(OPTIONS) - 2, len(OPTIONS) - 1):
        for names in combinations(OPTIONS, size):
            if {"at", "delay"} <= set(names) or ("many" in way and "message_id" in names):
                continue
            broker.client.flushall()
            given = {name: OPTIONS[name] for name in names}
            sent = WAYS[way](one.configure(**given), one)
            check(broker, sent, given)


def check(broker: StreamBroker, sent: Sent[None], given: dict[str, Any]) -> None:
    """The stored message has what was given, and what its actor has else."""
    found = stored(broker.client, sent.message_id)
    message = decode(found.payload)
    is_delayed = "delay" in given or "at" in given
    assert found.state == ("delayed" if is_delayed else "queued")
    if is_delayed:
        due = given.get("at", datetime.now(UTC) + timedelta(hours=1))
        assert abs(found.since - due) < timedelta(minutes=10)
    assert found.priority == ("high" if "priority" in given else "low")
    assert found.queue == message.queue_name == sent.queue_name == given.get("queue_name", "default")
    assert ("message_id" in given) is (sent.message_id == "row 7") is bool(broker.client.exists("{worker}:seen:row 7"))
    assert broker.client.exists("{worker}:u:merge:42") == ("key" in given)
    assert message.options.get("time_limit") == (120_000 if "time_limit" in given else None)
    assert message.options.get("max_retries") == given.get("max_retries")


def test_a_key_is_held_and_an_id_is_remembered_at_once(broker: StreamBroker, one: Actor[[int], None]) -> None:
    """A message with both is enqueued if nothing is in its way, and the answer names what is."""
    first = one.configure(key="key", message_id="a").send(1)
    assert first.is_new
    by_key = one.configure(key="key", message_id="b").send(2)
    assert (by_key.is_new, by_key.message_id) == (False, "a")
    by_id = one.configure(key="other", message_id="a").send(3)
    assert (by_id.is_new, by_id.message_id) == (False, "a")


def test_of_many_with_one_key_the_first_is_enqueued(broker: StreamBroker, one: Actor[[int], None]) -> None:
    """The others bear its id."""
    first, *others = one.configure(key="key").send_many(one.message(number) for number in range(3))
    assert first.is_new
    assert [(other.is_new, other.message_id) for other in others] == [(False, first.message_id)] * 2


def test_an_urgent_message_runs_before_the_others_of_its_actor(broker: StreamBroker) -> None:
    """In its worker too, and after a retry."""
    ran: list[int] = []

    @actor(max_retries=1)
    def noted(number: int) -> None:
        ran.append(number)
        if ran.count(number) == 1 and number == 9:
            raise ValueError(number)

    noted.configure(priority=5).send(1)
    noted.send(2)
    noted.configure(priority=-5).send(9)
    with idle_worker(broker) as worker:
        worker.start()
        broker.join("default", timeout=60_000)
    assert ran[0] == 9
    assert sorted(ran) == [1, 2, 9, 9]
    assert ran.index(2) < ran.index(1)


def test_an_actor_stays_as_it_is(broker: StreamBroker, one: Actor[[int], None]) -> None:
    """What is configured can be kept and used again, beside the actor."""
    later = one.configure(delay="1h")
    assert [stored(broker.client, sent.message_id).state for sent in (later.send(1), one.send(1), later.send(1))] == [
        "delayed",
        "queued",
        "delayed",
    ]


def test_a_time_that_is_past_is_now(broker: StreamBroker, one: Actor[[int], None]) -> None:
    """The message waits in its queue."""
    sent = one.configure(at=datetime(2020, 1, 1, tzinfo=UTC)).send(1)
    assert stored(broker.client, sent.message_id).state == "queued"


@pytest.mark.parametrize(
    ("options", "kind", "line"),
    [
        ({"at": datetime(2036, 1, 1)}, ValueError, "at=2036-01-01T00:00:00 has no time zone: write datetime"),  # noqa: DTZ001
        ({"at": "tomorrow"}, TypeError, "at='tomorrow': write a datetime with a time zone"),
        ({"at": IN_A_DAY, "delay": "1h"}, ValueError, "at= and delay= both say when"),
        ({"delay": 5_000}, TypeError, 'delay=5000: write timedelta(seconds=5) or "5s" if milliseconds were meant'),
        ({"time_limit": 60_000}, TypeError, '"16h40m" if seconds'),
        ({"result_ttl": 1}, TypeError, "result_ttl=1: write"),
        ({"ttl": 5}, ValueError, "ttl= belongs to a key: give key= too"),
        ({"until": "start"}, ValueError, "until= belongs to a key"),
        ({"key": "k", "until": "never"}, ValueError, "until='never': write 'start' or 'end'"),
        ({"key": ""}, TypeError, "key='': write a text"),
        ({"key": "k", "ttl": 0}, ValueError, "ttl=0: write a time longer than nothing"),
        ({"key": "k", "ttl": "soon"}, ValueError, "ttl='soon': write a time"),
        ({"priority": "high"}, TypeError, "priority='high': write a whole number"),
        ({"queue_name": "no spaces"}, ValueError, "queue_name='no spaces': begin with a letter"),
        ({"message_id": ""}, ValueError, "message_id is empty"),
        ({"dealy": "5s"}, ValueError, "the option 'dealy': did you mean delay?"),
        ({"colour": "red"}, ValueError, "add the middleware that reads it, or use send_with_options"),
        ({"at_most_once": True}, ValueError, "at_most_once is an option of actors: give it to @actor"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(
    broker: StreamBroker, one: Actor[[int], None], options: dict[str, Any], kind: type[Exception], line: str
) -> None:
    """In one line that says what to write; nothing is enqueued."""
    with pytest.raises(kind) as caught:
        one.configure(**options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_id_is_not_for_many(broker: StreamBroker, one: Actor[[int], None]) -> None:
    """All but one of them would be lost."""
    with pytest.raises(ValueError, match="message_id= is the id of one message"):
        one.configure(message_id="a").send_many([one.message(1), one.message(2)])


async def test_any_way_to_send_that_blocks_a_loop_says_so(broker: StreamBroker, one: Actor[[int], None]) -> None:
    """Those of plain actors and of the broker too."""
    plain = dramatiq.actor(broker=broker, actor_name="plain")(print)
    ways: list[Callable[[], object]] = [
        lambda: one.send(1),
        lambda: one.send_with_options(args=(1,)),
        lambda: one.configure(delay="1h").send(1),
        lambda: one.send_many([one.message(1)]),
        lambda: one.send_unique(key="k", args=(1,)),
        lambda: one.send_once(message_id="x", args=(1,)),
        plain.send,
        lambda: broker.enqueue(one.message(1)),
    ]
    for way in ways:
        with pytest.warns(SendInLoopWarning, match="asend") as caught:
            way()
        assert caught[0].filename == __file__
    await one.configure(delay="1h").asend(1)
