"""What follows from an attempt runs, or the attempt has failed: retries, the rest of a pipeline, callbacks."""

from __future__ import annotations

import contextvars
import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import GroupCallbacks

from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.stored import stored
from tests.support.workers import working
from worker import NoContentFound, actor
from worker.broker.backend import NamespacedBackend
from worker.broker.streams import StreamBroker
from worker.history.answers import StoredMessage
from worker.history.query import ask, one_message
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

JOIN_MS = 60_000

ran: list[object] = []


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker whose failed messages are retried at once, and twice."""
    ran.clear()
    with stream_broker(settings, **AT_ONCE, max_retries=2) as made:
        yield made


def run_all(broker: StreamBroker) -> None:
    """Runs what waits, with what follows from it, until nothing is left."""
    with working(broker):
        broker.join("default", timeout=JOIN_MS)


def test_a_retry_has_the_arguments_that_were_sent(broker: StreamBroker) -> None:
    """Also where the actor has taken from them what it had done, or put something into them that is no JSON."""

    @actor
    def works_off(ids: list[int], *, notes: dict[str, object]) -> None:
        ran.append((list(ids), dict(notes)))
        notes["began"] = object()
        while ids:
            if ids.pop() == 2 and len(ran) == 1:
                raise ValueError("the first attempt")

    message = works_off.send([1, 2, 3], notes={"kind": "a"})
    run_all(broker)
    assert ran == [([1, 2, 3], {"kind": "a"})] * 2
    assert stored(broker.client, message.message_id).state == "completed"


def test_an_attempt_whose_pipeline_cannot_go_on_is_a_dead_letter(broker: StreamBroker) -> None:
    """At once, because its result would be no other; the event has the reason, and `on_failure` is told."""

    @actor
    def answers() -> set[int]:
        return {1, 2}

    @actor
    def takes(numbers: list[int]) -> None:
        ran.append(numbers)

    @dramatiq.actor
    def tell(message: dict[str, Any], error: dict[str, str]) -> None:
        ran.append(error["type"])

    first = answers.message_with_options(on_failure="tell")
    dramatiq.pipeline([first, takes.message_with_options()]).run()
    run_all(broker)
    found = stored(broker.client, first.message_id)
    assert found.state == "dead"
    assert [event.state.value for event in found.events] == ["started", "failed"]
    error = found.events[-1].error
    assert error is not None
    assert error.type == "worker.errors.MessageRefused"
    assert "set is not JSON" in error.text
    assert ran == ["MessageRefused"]


@pytest.mark.parametrize("loop", ["shared", "new"])
def test_a_callback_that_is_no_actors_name_changes_no_outcome(
    broker: StreamBroker, caplog: pytest.LogCaptureFixture, loop: Any
) -> None:
    """The success stays one, and the failure is retried; the attempt's end and the log tell the name."""

    @actor(on_success="nobody", on_failure="nowhere", loop=loop, max_retries=1)
    async def works(fails: bool) -> None:
        ran.append(fails)
        if fails:
            raise KeyError("lost")

    well, badly = works.send(False), works.send(True)
    run_all(broker)
    told = "on_success='nobody': this worker has no actor of that name, and calls none"
    found = stored(broker.client, well.message_id)
    assert (found.state, found.events[-1].text) == ("completed", told)
    failed = stored(broker.client, badly.message_id)
    assert (failed.state, failed.attempts) == ("dead", 2)
    assert "on_failure='nowhere': this worker has no actor of that name" in failed.events[-1].text
    assert told in caplog.text
    assert (len(ran), ran.count(True)) == (3, 2)


def test_an_attempt_whose_success_nobody_can_be_told_is_a_dead_letter(broker: StreamBroker) -> None:
    """Its result is no JSON; one that returns JSON calls it."""

    @dramatiq.actor
    def tell(message: dict[str, Any], result: object) -> None:
        ran.append(result)

    @dramatiq.actor(on_success="tell")
    def answers(number: int) -> object:
        return number or dt.datetime.now(tz=dt.UTC)

    messages = [answers.send(number) for number in range(2)]
    run_all(broker)
    first, second = (stored(broker.client, message.message_id) for message in messages)
    assert first.state == "dead"
    assert first.events[-1].error is not None
    assert first.events[-1].error.type == "worker.errors.MessageRefused"
    assert second.state == "completed"
    assert ran == [1]


def test_a_member_of_a_group_that_a_middleware_could_not_count_runs_again(broker: StreamBroker) -> None:
    """Its own server was away: otherwise the group would never complete."""

    class CountsElsewhere(GroupCallbacks):
        was_away = False

        def after_process_message(self, *args: Any, **kwargs: Any) -> None:
            if not self.was_away:
                self.was_away = True
                raise redis.ConnectionError("the server is away")
            super().after_process_message(*args, **kwargs)  # type: ignore[no-untyped-call]

    broker.add_middleware(CountsElsewhere(NamespacedBackend(broker.client)))

    @actor
    def member() -> None:
        ran.append("member")

    @actor
    def complete() -> None:
        ran.append("complete")

    group = dramatiq.group([member.message() for _ in range(2)])
    group.add_completion_callback(complete.message())
    group.run()
    run_all(broker)
    assert ran == ["member"] * 3 + ["complete"]


@pytest.mark.parametrize("declare", [actor, dramatiq.actor], ids=["ours", "dramatiqs"])
def test_a_skip_holds_up_neither_a_group_nor_a_pipeline(broker: StreamBroker, declare: Any) -> None:
    """With and without a status context: the group completes, and the pipeline goes on with None."""

    def skip() -> None:
        raise NoContentFound("nothing there")

    skips = declare(skip)

    @actor
    def follows(result: object) -> None:
        ran.append(result)

    group = dramatiq.group([skips.message(), skips.message()])
    group.add_completion_callback(follows.message("complete"))
    group.run()
    run_all(broker)
    assert ran == ["complete"]
    dramatiq.pipeline([skips.message(), follows.message_with_options()]).run()
    run_all(broker)
    assert ran == ["complete", None]


def test_what_an_attempt_has_left_behind_sends_for_itself_while_the_attempt_ends(broker: StreamBroker) -> None:
    """Its message is stored when the call returns; with the attempt's end it could be lost."""
    ends, sent = threading.Event(), threading.Event()
    found: list[StoredMessage | None] = []

    @actor
    def other() -> None:
        ran.append("other")

    @actor
    def leaves_a_thread() -> None:
        context = contextvars.copy_context()

        def send() -> None:
            ends.wait(60)
            message = context.run(other.send)
            found.append(ask(broker.client, one_message(message.message_id)))
            sent.set()

        threading.Thread(target=send).start()

    class Waits(dramatiq.Middleware):
        def after_process_message(
            self,
            broker: Broker,
            message: MessageProxy,
            *,
            result: object = None,
            exception: BaseException | None = None,
        ) -> None:
            if message.actor_name == "leaves_a_thread":
                ends.set()
                assert sent.wait(60)

    broker.add_middleware(Waits())
    leaves_a_thread.send()
    run_all(broker)
    assert found != [None]
    assert ran == ["other"]
