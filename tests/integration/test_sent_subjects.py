"""The subject of a message is known when it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.stored import state_of, stored
from tests.support.workers import idle_worker
from worker import ProcessingStatusContext, actor
from worker.broker.actor import Actor
from worker.broker.streams import StreamBroker
from worker.history.filters import MessageFilter
from worker.history.query import all_messages, count_messages
from worker.operations.actions import cancel
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

JOIN_MS = 60_000


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker on streams."""
    with stream_broker(settings, **AT_ONCE) as made:
        yield made


@pytest.fixture
def merge(broker: StreamBroker) -> Actor[..., None]:
    """An actor whose messages are about a conversation."""

    @actor(subject=("conversation_id", "part"), max_retries=0)
    def merge(conversation_id: str, part: int = 1) -> None:
        raise ValueError(conversation_id)

    return merge


WAYS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda merge: merge.send("42"),
    "by name": lambda merge: merge.send(conversation_id="42"),
    "delayed": lambda merge: merge.configure(delay="1h").send("42"),
    "unique": lambda merge: merge.configure(key="k").send("42"),
    "once": lambda merge: merge.configure(message_id="a").send("42"),
    "many": lambda merge: merge.send_many([merge.message("42")])[0],
    "Dramatiq's": lambda merge: dramatiq.get_broker().enqueue(merge.message("42")),
}


def about(broker: StreamBroker, **subject: str) -> list[str]:
    """The ids of the messages about this."""
    return [one.id for one in all_messages(broker.client, MessageFilter(subject=subject))]


@pytest.mark.parametrize("way", WAYS)
def test_a_message_that_never_started_is_found_shown_and_cancelled_by_its_subject(
    broker: StreamBroker, merge: Actor[..., None], way: str
) -> None:
    """However it was sent."""
    sent = WAYS[way](merge)
    merge.send("43")
    assert stored(broker.client, sent.message_id).subject == {"conversation_id": "42", "part": "1"}
    assert about(broker, conversation_id="42") == about(broker, conversation_id="42", part="1") == [sent.message_id]
    assert cancel(broker.client, MessageFilter(subject={"conversation_id": "42"})).done == (sent.message_id,)
    assert state_of(broker.client, sent.message_id) == "cancelled"
    assert count_messages(broker.client, MessageFilter(states=("queued",))) == 1


def test_a_plain_actor_declares_its_subject_too(broker: StreamBroker) -> None:
    """As an option of Dramatiq's own decorator, checked when the actor is declared."""

    @dramatiq.actor(subject=("conversation_id",))
    def explicit(conversation_id: str) -> None:
        with ProcessingStatusContext("explicit", conversation_id=conversation_id):
            pass

    sent = explicit.send("42")
    assert about(broker, conversation_id="42") == [sent.message_id]
    with pytest.raises(ValueError, match="subject of other: 'user' is not one of its parameters"):
        dramatiq.actor(subject=("user",), actor_name="other")(explicit.fn)
    assert "other" not in broker.actors


def test_what_follows_from_an_attempt_has_its_subject(broker: StreamBroker, merge: Actor[..., None]) -> None:
    """A callback is stored with the end of the attempt."""

    @actor(subject=("told",))
    def hears(told: dict[str, object], error: dict[str, object]) -> None: ...

    hears.queue_name = "elsewhere"
    merge.configure(on_failure=hears).send("42")
    with idle_worker(broker) as worker:
        worker.start()
        broker.join("default", timeout=JOIN_MS)
    [waits] = all_messages(broker.client, MessageFilter(states=("queued",)))
    assert waits.actor == "hears"
    assert waits.subject["told"].startswith("{'queue_name': 'default'")


def test_an_attempt_adds_to_the_subject_and_leaves_no_part_twice(broker: StreamBroker, merge: Actor[..., None]) -> None:
    """What its context tells is what the sender has told."""
    sent = merge.send("42")
    with idle_worker(broker) as worker:
        worker.start()
        broker.join("default", timeout=JOIN_MS)
    found = stored(broker.client, sent.message_id)
    assert found.subject == {"conversation_id": "42", "part": "1"}
    assert [dict(event.subject) for event in found.events] == [{"conversation_id": "42", "part": 1}] * 2


def test_a_secret_in_a_subject_is_masked_when_it_is_sent(broker: StreamBroker, merge: Actor[..., None]) -> None:
    """As in every text that is stored; whatever else is in it stays one part."""
    sent = merge.send("redis://user:hunter22@host/0 \x1e\x1f\t")
    subject = stored(broker.client, sent.message_id).subject
    assert set(subject) == {"conversation_id", "part"}
    assert "hunter22" not in subject["conversation_id"]


def test_a_message_that_is_gone_is_found_by_its_subject_no_more(broker: StreamBroker, merge: Actor[..., None]) -> None:
    """Its index goes with it."""
    merge.send("42")
    broker.flush("default")
    assert broker.client.keys("{worker}:s:*") == []


def test_a_message_whose_actor_declares_no_subject_pays_nothing(broker: StreamBroker) -> None:
    """Its record has no part, and there is no index."""

    @actor
    def plain(number: int) -> None: ...

    sent = plain.send(1)
    assert stored(broker.client, sent.message_id).subject == {}
    assert broker.client.keys("{worker}:s:*") == []
