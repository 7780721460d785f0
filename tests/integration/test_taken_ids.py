"""An id that is taken: what is sent under it once more runs, or its sender is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.stored import event_states, stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import Sent, actor, create_broker, current_attempt
from worker.broker import enqueue_unique
from worker.broker.streams import StreamBroker
from worker.errors import Fatal
from worker.operations.actions import cancel, purge
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

JOIN_MS = 60_000
AGAIN = timedelta(milliseconds=10)


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker whose failed messages are retried at once, and twice."""
    with stream_broker(settings, **AT_ONCE, max_retries=2) as made:
        yield made


def run_all(broker: StreamBroker) -> None:
    """Runs what waits, with what it enqueues, until nothing is left."""
    with working(broker):
        broker.join("default", timeout=JOIN_MS)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log tells of messages that were not enqueued."""
    return [one.getMessage() for one in caplog.records if "nothing was enqueued" in one.getMessage()]


def own(message: dramatiq.Message[Any]) -> dramatiq.Message[Any]:
    """The message under the id of the attempt that runs here."""
    attempt = current_attempt()
    assert attempt is not None
    return message.copy(message_id=attempt.message_id)


# ---------------------------------------------------------------------- elsewhere: told


def test_a_second_send_under_an_id_that_is_taken_is_told_in_its_answer_and_in_the_log(
    broker: StreamBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """By itself, among many, and with a delay; the message runs once."""
    runs: list[int] = []

    @actor
    def one(number: int) -> None:
        runs.append(number)

    message = one.message(1)
    assert broker.enqueue(message).is_new
    answers = [
        broker.enqueue(message),
        broker.enqueue(message, delay=5),
        *one.send_many([message, one.message(2), message]),
    ]
    assert [isinstance(answer, Sent) and answer.is_new for answer in answers] == [False, False, False, True, False]
    assert [message.message_id in line for line in told(caplog)] == [True] * 4
    run_all(broker)
    assert sorted(runs) == [1, 2]


def test_every_send_answers_whether_it_is_new(broker: StreamBroker) -> None:
    """Sync and async, one and many, with options and with a key."""

    @actor
    def one(number: int) -> None: ...

    async def asynchronously() -> list[Sent[None]]:
        return [await one.asend(1), *await one.asend_many([one.message(2)])]

    many = one.send_many([one.message(3)])
    sent = [one.send(1), one.send_with_options(args=(1,), delay=1), one.send_unique(key="key", args=(1,)), *many]
    sent += asyncio.run(asynchronously())
    assert all(isinstance(answer, Sent) and answer.is_new for answer in sent)
    again = one.send_unique(key="key", args=(2,))
    assert (again.is_new, again.message_id) == (False, sent[2].message_id)


def test_an_answer_that_was_not_new_is_new_when_it_is_enqueued_after_all(broker: StreamBroker) -> None:
    """An answer can be sent again, and its own answer tells what became of this send."""

    @actor
    def one() -> None: ...

    refused = broker.enqueue(one.send())
    assert not refused.is_new
    run_all(broker)
    assert broker.enqueue(refused).is_new
    assert not refused.is_new
    assert [answer.is_new for answer in broker.enqueue_many([refused, one.message()])] == [False, True]


def test_a_group_of_repeats_completes(broker: StreamBroker) -> None:
    """Each runs under an id of its own, and the callback runs after the last."""
    runs: list[str] = []

    @actor
    def one() -> None:
        runs.append("one")

    @actor
    def callback() -> None:
        runs.append("callback")

    made = dramatiq.group([one.message()] * 3)
    made.add_completion_callback(callback.message())
    made.run()
    run_all(broker)
    assert runs == ["one"] * 3 + ["callback"]


def test_a_pipeline_of_repeats_runs_each(broker: StreamBroker) -> None:
    """As three messages, none of which is the retry of another."""
    runs: list[int] = []

    @actor
    def add(*numbers: int) -> int:
        runs.append(sum(numbers))
        return sum(numbers)

    message = add.message(1)
    made = (message | message | message).run()
    run_all(broker)
    assert runs == [1, 2, 3]
    assert [stored(broker.client, each.message_id).attempts for each in made.messages] == [1, 1, 1]


def test_what_follows_from_an_end_and_has_a_taken_id_is_told_in_the_log(
    broker: StreamBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a pipeline is run again before its end: nobody is there any more to get an answer."""

    @actor
    def one(*numbers: int) -> int:
        return 1

    waiting = one.message()
    broker.enqueue(waiting, delay=300)
    dramatiq.pipeline([one.message(), waiting]).run()
    run_all(broker)
    assert len(told(caplog)) == 1
    assert waiting.message_id in told(caplog)[0]


# ---------------------------------------------------------------------- inside its own attempt: it runs after it


def test_a_message_that_enqueues_itself_runs_as_often_as_it_says(broker: StreamBroker) -> None:
    """With a delay and without; it is new each time, and stays one message with its attempts counted on."""
    numbers: list[int] = []

    @actor
    def counts(number: int) -> None:
        numbers.append(number)
        if number < 3:
            assert broker.enqueue(own(counts.message(number + 1)), delay=10 * (number % 2)).is_new

    sent = counts.send(1)
    run_all(broker)
    assert numbers == [1, 2, 3]
    found = stored(broker.client, sent.message_id)
    assert (found.state, found.attempts) == ("completed", 3)
    assert event_states(broker.client, sent.message_id) == ["started", "completed"] * 3


def test_an_async_actor_may_enqueue_itself_too(broker: StreamBroker) -> None:
    """From the shared loop, through a thread."""
    numbers: list[int] = []

    @actor
    async def counts(number: int) -> None:
        numbers.append(number)
        if number < 2:
            assert (await asyncio.to_thread(broker.enqueue, own(counts.message(number + 1)))).is_new

    counts.send(1)
    run_all(broker)
    assert numbers == [1, 2]


def test_what_enqueues_itself_and_fails_is_retried_first(broker: StreamBroker) -> None:
    """What it enqueued is due after the final end; what a retry enqueues takes the place of what came before."""
    runs: list[tuple[str, int]] = []

    @actor
    def works(what: str) -> None:
        attempt = current_attempt()
        assert attempt is not None
        runs.append((what, attempt.number))
        if what == "first":
            assert broker.enqueue(own(works.message(f"after attempt {attempt.number}"))).is_new
            if attempt.number == 1:
                raise ValueError("again")

    sent = works.send("first")
    run_all(broker)
    assert runs == [("first", 1), ("first", 2), ("after attempt 2", 3)]
    assert event_states(broker.client, sent.message_id) == [
        "started",
        "failed",
        "started",
        "completed",
        "started",
        "completed",
    ]


@pytest.mark.parametrize("error", [Fatal("for good"), ValueError("three times")], ids=["at once", "after retries"])
def test_what_enqueues_itself_and_fails_for_good_runs_once_more(broker: StreamBroker, error: Exception) -> None:
    """Its failures stay in its history; it is no dead letter any more, and is found as one that has failed."""
    runs: list[str] = []

    @actor
    def works(what: str) -> None:
        runs.append(what)
        if what == "first":
            if len(runs) == 1:
                broker.enqueue(own(works.message("next")), delay=1)
            raise error

    sent = works.send("first")
    run_all(broker)
    attempts = 1 if isinstance(error, Fatal) else 3
    assert runs == ["first"] * attempts + ["next"]
    assert stored(broker.client, sent.message_id).state == "completed"
    assert event_states(broker.client, sent.message_id) == ["started", "failed"] * attempts + ["started", "completed"]
    assert purge(broker.client, [sent.message_id], by="ann").done == ()


def test_of_two_that_one_attempt_enqueues_under_its_id_the_second_is_told(
    broker: StreamBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """There is one place after its end."""
    answers: list[bool] = []
    runs: list[str] = []

    @actor
    def works(what: str) -> None:
        runs.append(what)
        if what == "first":
            answers.extend(broker.enqueue(own(works.message(next_))).is_new for next_ in ("second", "third"))

    works.send("first")
    run_all(broker)
    assert answers == [True, False]
    assert len(told(caplog)) == 1
    assert runs == ["first", "second"]


def test_what_is_cancelled_does_not_go_on_by_what_it_has_enqueued(broker: StreamBroker) -> None:
    """Whoever cancels a message that always enqueues itself again wants it to stop."""
    began, runs = threading.Event(), []

    @actor(loop="new")
    async def goes_on() -> None:
        runs.append(1)
        await asyncio.to_thread(broker.enqueue, own(goes_on.message()))
        began.set()
        await asyncio.sleep(60)

    sent = goes_on.send()
    with working(broker):
        assert began.wait(60)
        wait_until(lambda: cancel(broker.client, [sent.message_id], by="ann").done)
        broker.join("default", timeout=JOIN_MS)
    assert runs == [1]
    assert stored(broker.client, sent.message_id).state == "cancelled"


def test_a_message_that_has_enqueued_itself_shows_it(broker: StreamBroker) -> None:
    """While it runs, with the time when that is due; not any more afterwards."""
    stored_, go_on = threading.Event(), threading.Event()

    @actor
    def waits(number: int) -> None:
        if number == 1:
            broker.enqueue(own(waits.message(2)), delay=60_000)
            stored_.set()
            go_on.wait(60)

    sent = waits.send(1)
    with working(broker):
        assert stored_.wait(60)
        found = stored(broker.client, sent.message_id)
        assert found.follows is not None
        assert found.state in ("queued", "running")
        go_on.set()
        wait_until(lambda: stored(broker.client, sent.message_id).state == "delayed")
    after = stored(broker.client, sent.message_id)
    assert after.follows is None
    assert after.since == found.follows


# ---------------------------------------------------------------------- only if this id was never seen


def test_a_message_that_is_sent_once_runs_once_however_often_it_is_sent(
    broker: StreamBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """While it waits, after its end, and when the history has forgotten it; nothing is logged, for that was asked."""
    runs: list[int] = []

    @actor(max_retries=0)
    def one(number: int) -> None:
        runs.append(number)
        raise ValueError

    def send() -> Sent[None]:
        return one.send_once(message_id="row 7", args=(7,))

    answers = [send().is_new, send().is_new]
    run_all(broker)
    answers.append(send().is_new)
    assert purge(broker.client, ["row 7"], by="ann").done == ("row 7",)
    answers.append(send().is_new)
    assert answers == [True, False, False, False]
    assert not told(caplog)
    run_all(broker)
    assert runs == [7]


def test_an_id_of_the_history_was_seen_too(broker: StreamBroker) -> None:
    """However its message was sent."""

    @actor
    def one() -> None: ...

    sent = one.send()
    run_all(broker)
    again = one.send_once(message_id=sent.message_id)
    assert (again.is_new, again.message_id) == (False, sent.message_id)


def test_an_id_is_remembered_for_as_long_as_the_settings_say_from_when_it_is_due(
    settings: Settings, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`WORKER_SEEN`, whatever becomes of the history."""
    broker = create_broker(settings.model_copy(update={"seen": timedelta(hours=1)}))
    assert isinstance(broker, StreamBroker)
    monkeypatch.setattr("dramatiq.broker.global_broker", broker)

    @actor
    def one() -> None: ...

    one.send_once(message_id="now")
    one.send_once(message_id="later", delay=timedelta(hours=2))
    left = [int(broker.client.pttl(f"{{worker}}:seen:{name}")) / 3_600_000 for name in ("now", "later")]
    assert left == [pytest.approx(1, abs=0.1), pytest.approx(3, abs=0.1)]
    broker.close()


def test_whoever_writes_a_bare_number_as_a_delay_is_told(broker: StreamBroker) -> None:
    """It could be seconds or milliseconds."""

    @actor
    def one() -> None: ...

    number: Any = 5
    with pytest.raises(TypeError, match="timedelta"):
        one.send_once(message_id="x", delay=number)
    with pytest.raises(TypeError, match="timedelta"):
        one.send_unique(key="x", delay=number)


def test_what_may_run_once_is_not_enqueued_by_its_own_attempt_either(broker: StreamBroker) -> None:
    """Its id was seen, and its unique key is its own while it runs: the answer says so."""
    answers: list[bool] = []

    @actor
    def relays() -> None:
        answers.append(relays.send_once(message_id="event").is_new)

    @actor
    def refreshes() -> None:
        answers.append(enqueue_unique(own(refreshes.message()), key="page").is_new)
        answers.append(refreshes.send_unique(key="page").is_new)

    relays.send_once(message_id="event")
    refreshes.send_unique(key="page")
    run_all(broker)
    assert answers == [False] * 3
