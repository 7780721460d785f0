"""Messages that a worker cannot run, and another could: their actor is unknown here, or their arguments do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import stream_broker
from tests.support.indexes import indexes_agree
from tests.support.noting import noting
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker.broker.envelope import pack
from worker.broker.streams import StreamBroker
from worker.cli.show import show_message
from worker.history.as_json import MessageDetail, Shown
from worker.history.events import State
from worker.operations.actions import replay, run_now
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker with the usual settings."""
    with stream_broker(settings) as made:
        yield made


@pytest.mark.parametrize("options", [{"throws": "KeyError"}, {"max_retries": "3"}, {"on_success": ["note"]}], ids=str)
def test_a_message_with_an_option_that_nobody_can_read_ends_no_thread(
    broker: StreamBroker, options: dict[str, Any]
) -> None:
    """Another program has sent it, for ours refuses it: it waits, and the others run on the worker's one thread."""
    note, runs = noting()
    message = note.message_with_options(args=(1,), **options) if "on_success" not in options else note.message(1)
    message = message.copy(options=options)
    with pytest.raises(TypeError):
        broker.enqueue(message)
    broker._sender.send([pack(message, 1_000)])
    with working(broker, threads=1):
        wait_until(lambda: stored(broker.client, message.message_id).waits_for != "")
        note.send(2)
        wait_until(lambda: runs == [2])
    [(name, value)] = options.items()
    told = stored(broker.client, message.message_id).waits_for
    assert told.startswith(f"no worker here takes this option: {name}={value!r}: write ")


def test_a_message_for_an_unknown_actor_waits_for_a_worker_that_knows_it(
    broker: StreamBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is delayed by 5 s, then by 10 s, told once why, and runs as its first attempt where the actor is known."""
    note, runs = noting()
    sent = broker.enqueue(note.message(7).copy(actor_name="later"))
    note.send(1)
    with working(broker):
        delays = []
        for fence in (2, 3):
            wait_until(lambda number=fence: stored(broker.client, sent.message_id).fence == number)  # type: ignore[misc]
            found = stored(broker.client, sent.message_id)
            assert (found.state, found.attempts) == ("delayed", 0)
            key = broker.client.time()
            delays.append(found.since.timestamp() - key[0] - key[1] / 1e6)
            if fence == 2:
                assert run_now(broker.client, [sent.message_id], by="ann").done == (sent.message_id,)
    assert 0 < delays[0] <= 5
    assert 5 < delays[1] <= 10
    assert found.waits_for == "no worker here knows actor later"
    assert [event.text for event in found.events if event.state is State.WAITING] == [found.waits_for]
    told = MessageDetail.of(found, Shown())
    assert (told.waits_for, told.timeline) == (found.waits_for, [])
    show_message(found, arguments=False, as_json=False)
    assert "waits for a worker that can run it: no worker here knows actor later" in capsys.readouterr().out
    assert runs == [1]

    @dramatiq.actor
    def later(number: int) -> None:
        runs.append(number)

    assert run_now(broker.client, [sent.message_id], by="ann").done == (sent.message_id,)
    with working(broker):
        wait_until(lambda: stored(broker.client, sent.message_id).state == "completed")
    found = stored(broker.client, sent.message_id)
    assert (found.attempts, found.waits_for, runs) == (1, "", [1, 7])
    indexes_agree(broker.client)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing a required argument: 'number'"),
        ((1, 2), {}, "too many positional arguments"),
        ((1,), {"colour": 4}, "got an unexpected keyword argument 'colour'"),
    ],
)
def test_a_message_whose_arguments_do_not_fit_waits_for_a_worker_that_takes_them(
    broker: StreamBroker, args: tuple[int, ...], kwargs: dict[str, int], text: str
) -> None:
    """A newer program sent it, which names the argument; the actor's function is not called."""
    # Where it is sent, no actor is known that could refuse it.
    message: dramatiq.Message[None] = dramatiq.Message("default", "note", args, kwargs, {})
    sent = broker.enqueue(message)
    _, runs = noting()
    with working(broker):
        wait_until(lambda: stored(broker.client, sent.message_id).state == "delayed")
    found = stored(broker.client, sent.message_id)
    assert found.waits_for.startswith("no worker here takes these arguments: note(number")
    assert text in found.waits_for
    assert (found.attempts, runs) == (0, [])


def test_a_message_that_no_worker_could_run_for_too_long_is_a_dead_letter(
    settings: Settings, valkey: EmbeddedServer
) -> None:
    """After `WORKER_UNKNOWN_ACTOR`, as no attempt; a replay waits as long again, and middleware hears of the end."""
    rejected: list[str] = []

    class Rejections(dramatiq.Middleware):
        def after_nack(self, broker: dramatiq.Broker, message: dramatiq.broker.MessageProxy) -> None:
            rejected.append(message.message_id)

    with stream_broker(settings, unknown_actor=timedelta(milliseconds=300)) as broker:
        broker.add_middleware(Rejections())
        note, _ = noting()
        sent = broker.enqueue(note.message(1).copy(actor_name="nobody"))
        with working(broker):
            wait_until(lambda: stored(broker.client, sent.message_id).state == "dead" and bool(rejected))
            found = stored(broker.client, sent.message_id)
            assert found.attempts == 0
            assert [event.state for event in found.events] == [State.WAITING, State.FAILED]
            assert found.last_error == "UnknownActor: no worker here knows actor nobody"
            assert replay(broker.client, [sent.message_id], by="ann").done == (sent.message_id,)
            wait_until(lambda: stored(broker.client, sent.message_id).state == "delayed")
            wait_until(lambda: stored(broker.client, sent.message_id).state == "dead")
        assert rejected == [sent.message_id] * 2
        indexes_agree(broker.client)
