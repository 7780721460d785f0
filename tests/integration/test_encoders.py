"""Messages in a worker of a program that has set an encoder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import dramatiq
import pytest
from dramatiq.encoder import JSONEncoder

from tests.support.brokers import stream_broker
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import actor
from worker.broker.streams import StreamBroker
from worker.errors import MessageRefused
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings


class Coins(JSONEncoder):
    """Looks up the names of coins, and fails where it knows none, with whatever error that is."""

    values: ClassVar = {"penny": 1, "dime": 10}

    def encode(self, data: dict[str, Any]) -> bytes:
        """Writes names."""
        names = {value: name for name, value in self.values.items()}
        return super().encode(data | {"args": [names[one] for one in data["args"]]})

    def decode(self, data: bytes) -> dict[str, Any]:
        """Reads names."""
        fields: dict[str, Any] = super().decode(data)
        return fields | {"args": [self.values[one] for one in fields["args"]]}


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker whose program has set the encoder."""
    before = dramatiq.get_encoder()
    with stream_broker(settings) as made:
        dramatiq.set_encoder(Coins())
        try:
            yield made
        finally:
            dramatiq.set_encoder(before)


def test_a_message_on_which_the_encoder_fails_is_a_dead_letter_and_keeps_no_other(broker: StreamBroker) -> None:
    """Whatever it raises: the messages that were taken together with it run."""
    got: list[int] = []

    @actor
    async def pay(coin: int) -> None:
        got.append(coin)

    Coins.values["florin"] = 24
    sent = [pay.send(coin) for coin in (1, 24, 10)]
    del Coins.values["florin"]
    with working(broker):
        wait_until(lambda: sorted(got) == [1, 10])
        wait_until(lambda: stored(broker.client, sent[1].message_id).state == "dead")
    assert "that Coins cannot read (KeyError)" in stored(broker.client, sent[1].message_id).last_error


def test_a_message_that_the_encoder_does_not_take_is_refused_where_it_is_sent(broker: StreamBroker) -> None:
    """Whatever it raises, the error is ours, and tells the encoder's."""

    @actor
    async def pay(coin: int) -> None:
        """Does nothing."""

    with pytest.raises(MessageRefused, match=r"a message for pay .*KeyError: 5"):
        pay.send(5)
