"""What a sender tells the server of its actors, so that their messages lie where the first worker looks for them."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from tests.support.brokers import stream_broker
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import actor
from worker.broker.heartbeat import _JOIN, _KEEP
from worker.broker.streams import StreamBroker
from worker.history.limits import history_limits
from worker.server.embedded import EmbeddedServer
from worker.server.keys import LOOP, THREAD
from worker.server.scripts import Argument
from worker.settings import Settings


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """The sender's broker."""
    with stream_broker(settings) as made:
        yield made


def runners(broker: StreamBroker) -> dict[bytes, bytes]:
    """The runners of actors, as the server knows them."""
    found: dict[bytes, bytes] = broker.client.hgetall(f"{broker.client.namespace.prefix}runners")  # type: ignore[assignment]
    return found


def waiting(broker: StreamBroker, runner: str) -> int:
    """The number of entries in the stream of a runner."""
    return int(broker.client.xlen(broker.client.namespace.stream("default", "normal", runner)))


def test_what_is_sent_before_any_worker_lies_where_it_will_be_looked_for(broker: StreamBroker) -> None:
    """Async actors on the loop, those with a number of attempts of their own in their place, sync ones on threads."""
    ran: list[str] = []

    @actor
    async def many() -> None:
        ran.append("many")

    @actor(concurrency=2)
    async def few() -> None:
        ran.append("few")

    @actor
    def sync() -> None:
        ran.append("sync")

    for one in (many, few, sync):
        one.send()
        one.send_many([one.message()])
    assert runners(broker) == {b"many": b"loop", b"few": b"loop.few"}
    assert [waiting(broker, runner) for runner in (LOOP, "loop.few", THREAD)] == [2, 2, 2]
    with working(broker):
        broker.join("default", timeout=30_000)
    assert sorted(ran) == ["few", "few", "many", "many", "sync", "sync"]


def test_the_server_is_told_once(broker: StreamBroker) -> None:
    """A message costs no more than its own round trip: its actor's runner is told with the first one only."""

    @actor
    async def passes() -> None:
        """Does nothing."""

    passes.send()
    broker.client.config_resetstat()
    passes.send()
    passes.send_many(passes.message() for _ in range(3))
    calls = broker.client.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 2


def test_a_message_that_no_living_worker_knows_is_found_by_one(broker: StreamBroker, settings: Settings) -> None:
    """While a worker lives, it is not hidden from it in the stream of a runner that nobody may have."""

    @actor
    async def known() -> None:
        """Gives the worker a queue."""

    with working(broker), stream_broker(settings) as sender:

        @actor
        async def unknown() -> None:
            """Is known to its sender alone."""

        wait_until(lambda: broker.client.exists("{worker}:leases"))
        sent = unknown.send()
        wait_until(lambda: stored(sender.client, sent.message_id).state == "delayed")
        assert runners(sender) == {b"known": b"loop"}


def test_a_sender_is_heard_again_when_all_workers_have_stopped(broker: StreamBroker, settings: Settings) -> None:
    """What they leave on the server is no worker that lives."""

    @actor
    async def known() -> None:
        """Gives the worker a queue."""

    with working(broker):
        wait_until(lambda: broker.client.exists("{worker}:leases"))
    with stream_broker(settings) as sender:

        @actor
        async def new() -> None:
            """Comes after the worker."""

        new.send()
        assert runners(sender) == {b"known": b"loop", b"new": b"loop"}
        assert waiting(sender, LOOP) == 1


class Blocks(Middleware):
    """A middleware that says nothing of the loop."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Does as if it blocked."""


def test_a_worker_knows_better_than_a_sender(broker: StreamBroker, settings: Settings) -> None:
    """One whose middleware keeps its actors to threads finds what a sender without it has put elsewhere."""
    ran: list[int] = []

    async def passes(number: int) -> None:
        ran.append(number)

    sent = actor(passes)
    sent.send_many(sent.message(number) for number in range(5))
    assert waiting(broker, LOOP) == 5
    with stream_broker(settings) as other:
        other.add_middleware(Blocks())
        actor(passes)
        with working(other):
            other.join("default", timeout=30_000)
        assert sorted(ran) == [0, 1, 2, 3, 4]
        assert runners(other) == {b"passes": b"thread"}


def test_a_whole_queue_is_moved_without_a_pause(broker: StreamBroker, settings: Settings) -> None:
    """Thousands of messages that wait elsewhere are moved in steps, and the next step is due at once."""

    @actor
    async def passes() -> None:
        """Does nothing."""

    passes.send_many(passes.message() for _ in range(2_500))
    _JOIN.run(broker.client, ["token", 60_000, "{}", 1, THREAD, 1, "default", "passes", THREAD])
    keep: list[Argument] = ["token", 60_000, "{}", 2, 100, 1, *history_limits(settings)]
    assert [_KEEP.run(broker.client, keep)[1] for _ in range(3)] == [0, 0, -1]
    assert (waiting(broker, LOOP), waiting(broker, THREAD)) == (0, 2_500)
    assert not broker.client.exists("{worker}:misplaced")


def test_what_waits_in_a_queue_that_is_read_later_is_moved_then(broker: StreamBroker, settings: Settings) -> None:
    """A worker of other queues has said that the actor runs on threads, when nobody knew of this queue."""
    ran: list[int] = []

    async def passes(number: int) -> None:
        ran.append(number)

    sent = actor(queue_name="later")(passes)
    sent.send(1)
    assert runners(broker) == {b"passes": b"loop"}
    with stream_broker(settings) as other:
        other.add_middleware(Blocks())
        actor(queue_name="later")(passes)

        @actor
        def another() -> None:
            """Gives the first worker a queue."""

        worker = dramatiq.Worker(other, queues={"default"}, worker_threads=1, worker_timeout=50)
        worker.start()
        wait_until(lambda: runners(other)[b"passes"] == b"thread")
        wait_until(lambda: not other.client.exists("{worker}:misplaced"))
        worker.stop()
        with working(other):
            wait_until(lambda: ran == [1])


def test_a_runner_that_a_living_process_says_again_in_time_is_kept(broker: StreamBroker, settings: Settings) -> None:
    """The process that said it last is gone: for three leases that changes nothing, and then another has said it."""
    gone: list[Argument] = ["gone", 1, "{}", 1, LOOP, 1, "default", "passes", LOOP]
    _JOIN.run(broker.client, gone)
    _JOIN.run(broker.client, ["lives", 60_000, "{}", 1, LOOP, 1, "default"])
    keep: list[Argument] = ["lives", 60_000, "{}", 2, 100, 1, *history_limits(settings)]
    wait_until(lambda: _KEEP.run(broker.client, keep) and broker.client.hexists("{worker}:runners-unsaid", "passes"))
    assert runners(broker) == {b"passes": b"loop"}
    _JOIN.run(broker.client, ["lives", 0, "{}", 1, LOOP, 1, "default", "passes", LOOP])
    _KEEP.run(broker.client, keep)
    assert not broker.client.exists("{worker}:runners-unsaid")
    assert runners(broker) == {b"passes": b"loop"}


def test_another_server_is_told_again(broker: StreamBroker) -> None:
    """After a lost connection another server may have the address: from the next message on, the sender starts anew."""

    @actor
    async def passes() -> None:
        """Does nothing."""

    passes.send()
    broker.client.flushall()
    for one in broker.client.client_list():
        broker.client.client_kill_filter(_id=one["id"], skipme=True)
    passes.send()
    passes.send()
    assert runners(broker) == {b"passes": b"loop"}
