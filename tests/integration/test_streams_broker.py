"""The broker on a real server, with a real Dramatiq worker in this process."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import GroupCallbacks, SkipMessage
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.rate_limits.backends import RedisBackend as RateLimiterBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.support.noting import noting
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import ProcessingStatusContext, Sent, create_broker
from worker.broker import heartbeat, reader, sending
from worker.broker.envelope import encode
from worker.broker.sending import SEND_GROUP
from worker.broker.streams import StreamBroker
from worker.broker.terms import Terms
from worker.errors import Fatal, MessageRefused, NoContentFound, RetryLater
from worker.history.answers import StoredMessage
from worker.history.events import State
from worker.history.filters import EventFilter, MessageFilter
from worker.history.query import all_messages, ask, one_message, state_counts
from worker.history.tail import follow_events, position
from worker.operations.actions import pause, resume
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.server.keys import PRIORITIES
from worker.server.line import Line
from worker.server.scripts import Argument, Script
from worker.settings import Settings
from worker.settings.groups import put_in_force

JOIN_MS = 60_000

MakeBroker = Callable[..., StreamBroker]


@pytest.fixture
def make_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> Iterator[Callable[..., dramatiq.Broker]]:
    """Makes brokers that retry at once, all on one server of the test's own."""
    monkeypatch.chdir(tmp_path)
    made: list[dramatiq.Broker] = []
    quick: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "min_backoff": timedelta(milliseconds=1),
        "max_backoff": timedelta(milliseconds=5),
    }

    def make(**values: Any) -> dramatiq.Broker:
        broker = create_broker(Settings(**quick | values))
        dramatiq.set_broker(broker)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()
    put_in_force(None)
    EmbeddedServer(Settings(**quick)).stop()


@pytest.fixture
def broker(make_broker: MakeBroker) -> StreamBroker:
    """A broker with the usual settings."""
    return make_broker()


def finish(broker: StreamBroker, *queues: str) -> None:
    """Waits until nothing is left to do, and all of it is stored."""
    for queue in queues or ("default",):
        broker.join(queue, timeout=JOIN_MS)


def stored(broker: StreamBroker, message: dramatiq.Message[Any]) -> StoredMessage:
    found = ask(broker.client, one_message(message.message_id))
    assert found is not None
    return found


def states(message: StoredMessage) -> list[str]:
    return [event.state.value for event in message.events]


@contextlib.contextmanager
def commands(broker: StreamBroker) -> Iterator[list[str]]:
    """The commands that the server gets in the block, but for those inside its scripts."""
    found: list[str] = []
    client, other = connect(broker._settings), connect(broker._settings)
    other.ping()
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        yield found
        other.echo("the end")
        while (one := monitor.next_command())["command"] != "ECHO the end":
            if one["client_type"] != "lua":
                found.append(one["command"])
    client.close()
    other.close()


# ---------------------------------------------------------------------- enqueueing


def test_enqueueing_is_one_round_trip(broker: StreamBroker) -> None:
    """Also with a delay."""

    @dramatiq.actor
    def idle() -> None: ...

    idle.send()
    idle.send_with_options(delay=60_000)
    with commands(broker) as sent:
        idle.send()
        idle.send_with_options(delay=60_000)
    assert [one.split()[0] for one in sent] == ["EVALSHA", "EVALSHA"]


def test_many_messages_are_enqueued_in_few_round_trips(broker: StreamBroker) -> None:
    """In their order."""

    @dramatiq.actor
    def note(number: int) -> None: ...

    first = broker.enqueue_many([note.message(-1)])
    with commands(broker) as sent:
        others = broker.enqueue_many([note.message(number) for number in range(2 * SEND_GROUP + 1)])
    assert len(sent) == 3
    entries: Any = broker.client.xrange("{worker}:q:default:normal:thread")
    assert [fields[b"i"].decode() for _, fields in entries] == [one.message_id for one in [*first, *others]]
    with working(broker):
        finish(broker)
    assert ask(broker.client, state_counts()) == {"completed": 2 * SEND_GROUP + 2}


def test_of_many_messages_one_that_is_refused_keeps_all_from_being_stored(broker: StreamBroker) -> None:
    """Nobody has to find out which were."""

    @dramatiq.actor
    def note(value: object) -> None: ...

    messages = [note.message(1)] * SEND_GROUP + [note.message(2), note.message(object())]
    with pytest.raises(MessageRefused):
        broker.enqueue_many(messages)
    assert broker.client.keys("{worker}:*") == []


@pytest.mark.parametrize(
    "value", [object(), b"bytes", float("nan"), "x" * 2_000], ids=["object", "bytes", "nan", "big"]
)
def test_what_is_no_plain_json_or_too_large_is_refused_before_anything_is_stored(
    make_broker: MakeBroker, value: object
) -> None:
    """Whoever sends it is told."""
    broker = make_broker(max_message_bytes=1_024)

    @dramatiq.actor
    def note(value: object) -> None: ...

    with pytest.raises(MessageRefused):
        note.send(value)
    assert broker.client.keys("{worker}:*") == []


def test_a_broker_that_was_closed_holds_no_connection(broker: StreamBroker, client: RedisClient) -> None:
    """Neither its own nor those of threads that have sent."""

    def connections() -> int:
        listed: Any = client.client_list()
        return len(listed)

    note, _ = noting()
    before = connections()
    hold = threading.Event()
    thread = threading.Thread(target=lambda: (note.send(1), hold.wait(JOIN_MS / 1000)))
    thread.start()
    note.send(2)
    broker.client.ping()
    wait_until(lambda: connections() >= before + 3)
    broker.close()
    wait_until(lambda: connections() == before)
    hold.set()
    thread.join()


class Forgetful(Script):
    """A script whose first answer is lost, and does not come again before something else has happened."""

    def __init__(self, script: Script, meanwhile: Callable[[], object]) -> None:
        self.__dict__.update(script.__dict__)
        self._meanwhile = [meanwhile]

    def run(self, client: RedisClient | Line, arguments: Sequence[Argument]) -> Any:
        """Runs it, and loses the answer the first time."""
        answer = super().run(client, arguments)
        while self._meanwhile:
            self._meanwhile.pop()()
            raise redis.ConnectionError("the connection was cut")
        return answer


@pytest.mark.parametrize(
    ("script", "send"),
    [
        ("_ENQUEUE_NEW", lambda actor: actor.send(1)),
        ("_ENQUEUE", lambda actor: actor.send_with_options(args=(1,), delay=1)),
        ("_ENQUEUE", lambda actor: actor.broker.enqueue_many([actor.message(1)], Terms(key="one", ttl_ms=60_000))[0]),
        ("_ENQUEUE", lambda actor: actor.broker.enqueue_many([actor.message(1)], Terms(key="one", until="start"))[0]),
        ("_ENQUEUE", lambda actor: actor.broker.enqueue_many([actor.message(1)], Terms(once=True))[0]),
    ],
    ids=["new", "delayed", "unique", "unique until its start", "once"],
)
def test_what_ends_before_its_lost_answer_is_asked_for_again_runs_once(
    broker: StreamBroker,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    send: Callable[[dramatiq.Actor[[int], None]], Sent[None]],
) -> None:
    """A sender tries again by itself when an answer was lost; an attempt may be quicker than that."""
    note, runs = noting()
    with working(broker):
        monkeypatch.setattr(sending, script, Forgetful(getattr(sending, script), lambda: finish(broker)))
        message = send(note)
        finish(broker)
    assert runs == [1]
    assert message.is_new
    assert states(stored(broker, message)) == ["started", "completed"]
    assert not broker.client.keys("{worker}:u:*")


def test_what_waits_when_its_lost_answer_is_asked_for_again_is_new(
    broker: StreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was this send that has enqueued it; the next under its id is told that it is taken."""
    note, runs = noting()
    monkeypatch.setattr(sending, "_ENQUEUE_NEW", Forgetful(sending._ENQUEUE_NEW, lambda: None))
    message = broker.enqueue(note.message(1))
    assert message.is_new
    assert not broker.enqueue(message).is_new
    with working(broker):
        finish(broker)
    assert runs == [1]


def test_what_an_attempt_enqueues_under_its_own_id_is_stored_once_when_the_answer_is_lost(
    broker: StreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is new, and runs once more."""
    answers: list[bool] = []

    @dramatiq.actor
    def itself() -> None:
        if not answers:
            monkeypatch.setattr(sending, "_ENQUEUE", Forgetful(sending._ENQUEUE, lambda: None))
            answers.append(broker.enqueue(sent).is_new)
        else:
            answers.append(True)

    sent = itself.message()
    broker.enqueue(sent)
    with working(broker):
        finish(broker)
    assert answers == [True, True]


def test_a_message_that_is_sent_again_after_its_end_runs_again(broker: StreamBroker) -> None:
    """However soon: nobody but its sender can know why."""
    note, runs = noting()
    message = note.message(1)
    with working(broker):
        for _ in range(20):
            broker.enqueue(message)
            finish(broker)
    assert runs == [1] * 20


def test_a_message_that_is_sent_twice_runs_once(broker: StreamBroker) -> None:
    """Whoever got no answer sends it again."""
    note, runs = noting()
    message = note.message(1)
    broker.enqueue(message)
    broker.enqueue(message)
    broker.enqueue_many([message, note.message(2), message])
    with working(broker):
        finish(broker)
    assert sorted(runs) == [1, 2]


def test_a_message_that_has_ended_can_be_enqueued_again(broker: StreamBroker) -> None:
    """Its attempts are counted on."""

    @dramatiq.actor
    def idle() -> None: ...

    message = idle.send()
    with working(broker):
        finish(broker)
        broker.enqueue(message)
        finish(broker)
    found = stored(broker, message)
    assert (found.state, found.attempts) == ("completed", 2)
    assert states(found) == ["started", "completed"] * 2


def test_of_a_unique_key_one_message_waits_or_runs(broker: StreamBroker) -> None:
    """A second send answers with the first's id; when that has ended, the key is free."""
    note, runs = noting()
    first = broker.enqueue_many([note.message(1)], Terms(key="key", ttl_ms=60_000))[0]
    second = broker.enqueue_many([note.message(2)], Terms(key="key", ttl_ms=60_000))[0]
    other = broker.enqueue_many([note.message(3)], Terms(key="other", ttl_ms=60_000))[0]
    assert second.message_id == first.message_id != other.message_id
    with working(broker):
        finish(broker)
        third = broker.enqueue_many([note.message(4)], Terms(key="key", ttl_ms=60_000))[0]
        finish(broker)
    assert third.message_id != first.message_id
    assert sorted(runs) == [1, 3, 4]


def test_a_unique_key_is_free_when_its_message_is_gone_without_an_attempt_of_its_own(broker: StreamBroker) -> None:
    """It was dropped with its queue, or is a dead letter because its worker died."""

    @dramatiq.actor
    def note(number: int) -> None: ...

    first = broker.enqueue_many([note.message(1)], Terms(key="key", ttl_ms=60_000))[0]
    broker.flush("default")
    second = broker.enqueue_many([note.message(2)], Terms(key="key", ttl_ms=60_000))[0]
    assert second.message_id != first.message_id


# ---------------------------------------------------------------------- delays and retries


def test_delayed_messages_run_in_the_order_in_which_they_are_due(broker: StreamBroker) -> None:
    """One that is due in a year holds up none, and none runs too early."""
    order: list[tuple[str, float]] = []
    sent_at = time.monotonic()

    @dramatiq.actor
    def note(name: str) -> None:
        order.append((name, time.monotonic() - sent_at))

    delays = {"year": 365 * 86_400_000, "third": 450, "first": 150, "second": 300}
    with working(broker):
        messages = {name: note.send_with_options(args=(name,), delay=delay) for name, delay in delays.items()}
        wait_until(lambda: len(order) == 3)
        assert [name for name, _ in order] == ["first", "second", "third"]
        assert all(after >= delays[name] / 1000 - 0.001 for name, after in order)
    assert stored(broker, messages["year"]).state == "delayed"


@pytest.mark.parametrize("delay", [0, -5, timedelta(microseconds=1_500), timedelta(days=10_000_000)])
def test_a_delay_may_be_of_any_length(broker: StreamBroker, delay: int | timedelta) -> None:
    """Also a fraction of a millisecond, none, and centuries."""

    @dramatiq.actor
    def idle() -> None: ...

    message = idle.send_with_options(delay=delay)
    with working(broker):
        if isinstance(delay, timedelta) and delay.days:
            assert stored(broker, message).state == "delayed"
        else:
            finish(broker)
            assert stored(broker, message).state == "completed"


def test_a_failed_message_is_retried_until_it_succeeds(broker: StreamBroker) -> None:
    """Each attempt has its events and its number; the message holds the last traceback alone."""
    failures = [ValueError("first"), KeyError("second")]

    @dramatiq.actor(max_retries=5)
    def fragile() -> None:
        if failures:
            raise failures.pop(0)

    message = fragile.send()
    with working(broker):
        finish(broker)
    found = stored(broker, message)
    assert (found.state, found.attempts) == ("completed", 3)
    assert states(found) == ["started", "failed", "started", "failed", "started", "completed"]
    assert [event.attempt for event in found.events] == [1, 1, 2, 2, 3, 3]
    assert found.payload.count(b"Traceback (most") == 1
    assert b"KeyError" in found.payload
    assert b'"retries":2' in found.payload


def test_a_retried_message_holds_no_half_of_a_secret(broker: StreamBroker) -> None:
    """Its traceback is masked before it is cut: behind the cut, nobody would know a secret for one."""
    said = f"postgresql://me:{'hunter2' * 20}@db/{'x' * 7_930}"

    @dramatiq.actor(max_retries=5)
    def fragile() -> None:
        raise ValueError(said)

    message = fragile.send_with_options(min_backoff=60_000, max_backoff=60_000)
    with working(broker):
        wait_until(lambda: stored(broker, message).state == "delayed")
    payload = stored(broker, message).payload
    assert b"xxxxx" in payload
    assert b"hunter2" not in payload


def test_a_message_of_the_largest_size_can_still_be_retried(make_broker: MakeBroker) -> None:
    """What a retry adds to it does not count."""
    broker = make_broker(max_message_bytes=1_024)
    runs: list[str] = []

    @dramatiq.actor(max_retries=1)
    def fragile(text: str) -> None:
        runs.append(text)
        if len(runs) == 1:
            raise ValueError

    size = 1_024 - len(encode(fragile.message(""), 1_024))
    message = fragile.send("x" * size)
    with working(broker):
        finish(broker)
    assert stored(broker, message).state == "completed"
    assert len(runs) == 2


def test_a_dead_letter_keeps_its_message_error_and_traceback(broker: StreamBroker) -> None:
    """For whoever looks into it."""

    @dramatiq.actor(max_retries=1)
    def doomed(number: int) -> None:
        raise ValueError(f"no {number}")

    message = doomed.send(7)
    with working(broker):
        finish(broker)
    found = stored(broker, message)
    assert (found.state, found.attempts) == ("dead", 2)
    assert b'"args":[7]' in found.payload
    error = found.events[-1].error
    assert error is not None
    assert (error.type, error.text) == ("ValueError", "no 7")
    assert "in doomed" in error.traceback
    assert [one.id for one in all_messages(broker.client, MessageFilter(error="ValueError"))] == [message.message_id]


@pytest.mark.parametrize(
    ("error", "state"), [(Fatal("never"), "dead"), (NoContentFound("nothing"), "skipped")], ids=["fatal", "nothing"]
)
def test_errors_say_what_to_do(broker: StreamBroker, error: Exception, state: str) -> None:
    """At the first attempt."""

    @dramatiq.actor
    def typed() -> None:
        raise error

    message = typed.send()
    with working(broker):
        finish(broker)
    found = stored(broker, message)
    assert (found.state, found.attempts) == (state, 1)


def test_a_message_that_another_middleware_skips_is_acknowledged(broker: StreamBroker) -> None:
    """Wherever that middleware stands."""

    class Skipper(dramatiq.Middleware):
        def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.broker.MessageProxy) -> None:
            raise SkipMessage

    broker.add_middleware(Skipper(), before=type(broker.middleware[0]))

    @dramatiq.actor
    def idle() -> None: ...

    idle.send()
    with working(broker):
        finish(broker)
    assert sum(ask(broker.client, state_counts()).values()) == 1


# ---------------------------------------------------------------------- bad entries


BAD = [
    b"not json",
    b"[]",
    b'{"queue_name":5,"actor_name":"note","args":[],"kwargs":{},"options":{},"message_id":"m"}',
    b'{"queue_name":"default","actor_name":"note","args":[],"kwargs":{},"options":{},"message_id":"another"}',
    b"[" * 50_000,
]


@pytest.mark.parametrize("payload", BAD, ids=lambda payload: repr(payload[:20]))
def test_what_cannot_be_read_is_a_dead_letter_by_itself_and_its_bytes_are_kept(
    broker: StreamBroker, payload: bytes
) -> None:
    """Messages before and after it run, and the worker goes on."""
    note, runs = noting()
    note.send(1)
    bad = note.send(2)
    key = f"{{worker}}:m:{bad.message_id}"
    record: Any = broker.client.get(key)
    head, _, rest = record.split(b"\n", 2)
    broker.client.set(key, b"\n".join([head, payload, rest]))
    broker.client.xadd("{worker}:q:default:normal:thread", {"what": "is this?"})
    note.send(3)
    with working(broker):
        finish(broker)
        note.send(4)
        finish(broker)
    assert sorted(runs) == [1, 3, 4]
    assert stored(broker, bad).state == "dead"
    assert ask(broker.client, state_counts()) == {"completed": 3, "dead": 2}
    dead = list(all_messages(broker.client, MessageFilter(states=("dead",))))
    assert all(one.events[-1].error is not None for one in dead)


def test_a_message_that_names_another_queue_runs_where_it_was_put(broker: StreamBroker) -> None:
    """A worker that does not read that queue is not confused."""
    note, runs = noting()
    message = note.send(1)
    key = f"{{worker}}:m:{message.message_id}"
    record: Any = broker.client.get(key)
    broker.client.set(key, record.replace(b'"queue_name":"default"', b'"queue_name":"nowhere"'))
    note.send(2)
    with working(broker):
        finish(broker)
    assert sorted(runs) == [1, 2]


# ---------------------------------------------------------------------- priorities and prefetch


def test_an_urgent_message_overtakes_all_but_what_was_taken_before_it(broker: StreamBroker) -> None:
    """Of three levels, the most urgent first."""
    order: list[str] = []
    gate = threading.Event()

    @dramatiq.actor(priority=10)
    def low(number: int) -> None:
        gate.wait(10)
        order.append("low")

    @dramatiq.actor
    def normal() -> None:
        order.append("normal")

    @dramatiq.actor(priority=-10)
    def high() -> None:
        order.append("high")

    broker.enqueue_many([low.message(number) for number in range(50)])
    with working(broker, threads=2):
        wait_until(lambda: pending(broker, "default", "low") == 2)
        normal.send()
        high.send()
        gate.set()
        finish(broker)
    assert order.index("high") < order.index("normal") <= 2 + 2
    assert order.count("low") == 50


def pending(broker: StreamBroker, queue: str, priority: str) -> int:
    stream = f"{{worker}}:q:{queue}:{priority}:thread"
    if not broker.client.exists(stream) or not broker.client.xinfo_groups(stream):
        return 0
    found: Any = broker.client.xpending(stream, "workers")
    return int(found["pending"])


def test_of_slow_work_a_process_takes_no_more_than_its_threads_run(broker: StreamBroker) -> None:
    """The rest is there for other processes."""
    gate = threading.Event()
    running = threading.Semaphore(0)

    @dramatiq.actor
    def slow() -> None:
        running.release()
        gate.wait(20)

    broker.enqueue_many([slow.message() for _ in range(20)])
    with working(broker, threads=3):
        for _ in range(3):
            assert running.acquire(timeout=10)
        assert pending(broker, "default", "normal") == 3
        gate.set()
        finish(broker)


# ---------------------------------------------------------------------- what Dramatiq offers


def test_results_groups_and_pipelines_work(broker: StreamBroker) -> None:
    """As with Dramatiq's own brokers."""
    broker.add_middleware(Results(backend=RedisBackend(client=broker.client)))

    @dramatiq.actor(store_results=True)
    def double(number: int) -> int:
        return 2 * number

    with working(broker):
        assert double.send(4).get_result(block=True) == 8
        group = dramatiq.group([double.message(number) for number in range(5)]).run()
        assert sorted(group.get_results(block=True, timeout=10_000)) == [0, 2, 4, 6, 8]
        pipe = (double.message(1) | double.message_with_options() | double.message_with_options()).run()
        assert pipe.get_result(block=True, timeout=10_000) == 8


def test_the_callback_of_a_group_runs_once_when_all_have_completed(broker: StreamBroker) -> None:
    """Not before."""
    runs: list[str] = []

    @dramatiq.actor
    def part(number: int) -> None:
        runs.append("part")

    @dramatiq.actor
    def done() -> None:
        runs.append("done")

    group = dramatiq.group([part.message(number) for number in range(5)])
    group.add_completion_callback(done.message())
    with working(broker):
        group.run()
        wait_until(lambda: "done" in runs)
        finish(broker)
    assert runs == ["part"] * 5 + ["done"]


@pytest.mark.parametrize("kind", ["streams", "redis-lists"])
def test_a_callback_comes_once_and_last_also_where_callbacks_are_added_again(
    make_broker: MakeBroker, kind: str
) -> None:
    """As Dramatiq's guide has people add them: not while one of the group still runs."""
    broker = make_broker(broker=kind)
    for _ in range(2):
        broker.add_middleware(GroupCallbacks(RateLimiterBackend(client=broker.client)))
    runs: list[str] = []
    gate = threading.Event()

    @dramatiq.actor
    def part(waits: bool) -> None:
        if waits:
            gate.wait(60)
        runs.append("part")

    @dramatiq.actor
    def note(text: str) -> None:
        runs.append(text)

    group = dramatiq.group([part.message(number == 0) for number in range(5)])
    group.add_completion_callback(note.message("callback"))
    with working(broker):
        group.run()
        wait_until(lambda: runs.count("part") == 4)
        for number in range(8):  # they come behind a callback that is early
            note.send(f"later {number}")
        wait_until(lambda: len(runs) >= 12)
        assert "callback" not in runs
        gate.set()
        wait_until(lambda: "callback" in runs)
        finish(broker)
    assert runs.count("part") == 5
    assert runs[-1] == "callback"
    assert runs.count("callback") == 1


def test_rate_limiters_work(broker: StreamBroker) -> None:
    """Whoever finds no place is retried."""
    limiter = ConcurrentRateLimiter(RateLimiterBackend(client=broker.client), "limit", limit=1)
    lock = threading.Lock()
    runs: list[int] = []

    @dramatiq.actor(max_retries=None)
    def limited(number: int) -> None:
        with limiter.acquire():
            assert lock.acquire(blocking=False)
            runs.append(number)
            time.sleep(0.005)
            lock.release()

    for number in range(6):
        limited.send(number)
    with working(broker):
        finish(broker)
    assert sorted(runs) == list(range(6))
    assert ask(broker.client, state_counts()) == {"completed": 6}


def test_what_follows_from_an_attempt_is_stored_with_its_end(broker: StreamBroker) -> None:
    """Callbacks and the next of a pipeline: no message of its own goes to the server for them."""
    runs: list[str] = []

    @dramatiq.actor
    def called_back(message: dict[str, Any], result: object) -> None:
        runs.append(f"after {message['actor_name']}")

    @dramatiq.actor(on_success="called_back")
    def good() -> int:
        return 1

    @dramatiq.actor(on_failure="called_back", max_retries=0)
    def bad() -> None:
        raise ValueError

    @dramatiq.actor
    def following(number: int) -> None:
        runs.append(f"following {number}")

    good.send()
    bad.send()
    (good.message() | following.message_with_options()).run()
    with commands(broker) as sent, working(broker):
        finish(broker)
    assert sorted(runs) == ["after bad", "after good", "after good", "following 1"]
    enqueueing = sending._ENQUEUE._hash, sending._ENQUEUE_NEW._hash
    assert not [one for one in sent if any(script in one for script in enqueueing)]


def test_what_follows_from_an_attempt_that_was_lost_is_not_stored(make_broker: MakeBroker) -> None:
    """Its message has gone to another process, whose attempt counts."""
    broker = make_broker(lease=timedelta(seconds=1))
    runs: list[str] = []

    @dramatiq.actor
    def following() -> None:
        runs.append("following")

    @dramatiq.actor
    def lost() -> None:
        runs.append("lost")
        with ProcessingStatusContext("lost"):
            if len(runs) == 1:
                session = broker.session
                assert session is not None
                session.flush(5)
                take_over(broker, session.heartbeat.token)

    dramatiq.pipeline([lost.message(), following.message_with_options(pipe_ignore=True)]).run()
    with working(broker):
        wait_until(lambda: "following" in runs)
        finish(broker)
    assert runs == ["lost", "lost", "following"]
    first = next(one for one in all_messages(broker.client, MessageFilter(actor="lost")))
    assert states(first) == ["started", "lost", "started", "completed"]


def take_over(broker: StreamBroker, token: str) -> None:
    """Another process finds that this one is dead."""
    broker.client.zadd("{worker}:leases", {token: 1})
    broker.client.delete("{worker}:patience", "{worker}:kept-at")
    limits = [60, *[60_000, 1_000] * 4]
    heartbeat._KEEP.run(broker.client, ["another", 1_000, 2, 100, 1, *limits])


# ---------------------------------------------------------------------- join and flush


def test_join_waits_for_what_waits_runs_or_is_delayed(broker: StreamBroker) -> None:
    """And for the ends to be stored; longer than so long it does not wait."""
    gate = threading.Event()

    @dramatiq.actor
    def slow() -> None:
        gate.wait(20)

    slow.send()
    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=50)
    with working(broker):
        with pytest.raises(QueueJoinTimeout):
            broker.join("default", timeout=50)
        gate.set()
        finish(broker)
        assert ask(broker.client, state_counts()) == {"completed": 1}
        slow.send_with_options(delay=50)
        finish(broker)
        assert ask(broker.client, state_counts()) == {"completed": 2}


def test_a_flush_drops_what_waits_in_its_queue_and_nothing_else(broker: StreamBroker) -> None:
    """Delayed messages too, and all that the history has of them."""

    @dramatiq.actor
    def idle() -> None: ...

    @dramatiq.actor(queue_name="other")
    def elsewhere() -> None: ...

    broker.enqueue_many([idle.message() for _ in range(1_200)])
    idle.send_with_options(delay=60_000)
    kept = elsewhere.send()
    broker.flush("default")
    assert ask(broker.client, state_counts()) == {"queued": 1}
    assert [one.id for one in all_messages(broker.client, MessageFilter())] == [kept.message_id]
    broker.join("default", timeout=100)
    broker.flush_all()
    assert ask(broker.client, state_counts()) == {}
    with pytest.raises(QueueNotFound):
        broker.flush("nowhere")


# ---------------------------------------------------------------------- cost and health


@pytest.mark.clock
def test_an_idle_worker_asks_for_almost_nothing_and_starts_a_message_at_once(broker: StreamBroker) -> None:
    """With three queues: under two commands a second, and milliseconds to the first line of the actor."""
    started: list[float] = []

    def note(sent_at: float) -> None:
        started.append(time.perf_counter() - sent_at)

    for queue in ("default", "second", "third"):
        dramatiq.actor(actor_name=queue, queue_name=queue)(note)
    actor = broker.get_actor("third")
    with working(broker):
        actor.send(time.perf_counter())
        finish(broker, "third")
        started.clear()
        seconds = 6.0
        with commands(broker) as sent:
            time.sleep(seconds)
        assert len(sent) < 2 * seconds
        for number in range(1, 31):
            actor.send(time.perf_counter())
            wait_until(lambda number=number: len(started) == number)  # type: ignore[misc]
    assert statistics.median(started) < 0.2


def test_a_queue_is_read_from_the_start_whichever_consumer_comes_first(broker: StreamBroker) -> None:
    """And one that is declared later, soon."""
    runs: list[str] = []

    def note(name: str) -> None:
        runs.append(name)

    names = [f"queue{number}" for number in range(30)]
    for name in names:
        dramatiq.actor(actor_name=name, queue_name=name)(note)
    begun = time.monotonic()
    with working(broker):
        for name in names:
            broker.get_actor(name).send(name)
        finish(broker, *names)
        later = dramatiq.actor(actor_name="later", queue_name="later")(note)
        later.send("later")
        finish(broker, "later")
    assert sorted(runs) == sorted([*names, "later"])
    assert time.monotonic() - begun < 15


def test_a_queue_that_comes_while_messages_are_taken_costs_no_lease(
    broker: StreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are taken from it when the server knows that this process reads it."""
    release, runs = threading.Event(), []
    come: list[dramatiq.Actor[[int], None]] = []

    @dramatiq.actor
    def hold(number: int) -> None:
        runs.append(number)
        assert release.wait(20)

    with working(broker, threads=3):
        first = hold.send(1)
        wait_until(lambda: runs == [1])
        session = broker._session
        assert session is not None
        room = session._reader._wait_for_room

        def wait_for_room(timeout: float) -> bool:
            if not come:
                come.append(dramatiq.actor(actor_name="later", queue_name="later")(hold.fn))
            return room(timeout)

        monkeypatch.setattr(session._reader, "_wait_for_room", wait_for_room)
        hold.send(2)
        wait_until(lambda: len(come) == 1)
        come[0].send(3)
        release.set()
        finish(broker, "default", "later")
        assert (session.heartbeat.epoch, session.standing.ends_refused) == (1, 0)
    assert sorted(runs) == [1, 2, 3]
    assert stored(broker, first).state == "completed"


def test_a_message_that_was_given_late_and_unseen_is_found(
    broker: StreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network may hold back a question that was given up, and deliver it when its asker has looked already."""
    monkeypatch.setattr(reader, "LOOK_FOR_LOST_EVERY", 0.5)
    note, runs = noting()
    with working(broker):
        note.send(1)
        finish(broker)
        session = broker._session
        assert session is not None
        pause(broker.client, "default")
        sent = note.send(2)
        streams: Any = dict.fromkeys([f"{{worker}}:q:default:{priority}:thread" for priority in PRIORITIES], ">")
        # The reader, which waited, may have had it and put it back.
        wait_until(lambda: bool(broker.client.xreadgroup("workers", session.heartbeat.token, streams, 1)))
        resume(broker.client, "default")
        finish(broker)
    assert runs == [1, 2]
    assert stored(broker, sent).state == "completed"


def test_an_error_that_cannot_say_what_it_is_is_retried_and_keeps_no_thread(make_broker: MakeBroker) -> None:
    """One thread, which goes on with the next message."""
    broker = make_broker(max_retries=1)

    class Silent(ValueError):
        def __str__(self) -> str:
            raise TypeError("no text")

    @dramatiq.actor
    def fail() -> None:
        raise Silent

    note, runs = noting()
    with working(broker, threads=1):
        failed = fail.send()
        note.send(1)
        finish(broker)
    assert runs == [1]
    assert (stored(broker, failed).state, states(stored(broker, failed))) == (
        "dead",
        ["started", "failed", "started", "failed"],
    )


def test_a_queue_that_comes_late_does_not_bring_a_lost_lease_back(broker: StreamBroker) -> None:
    """What was taken under it has gone to others: a new lease begins."""
    runs: list[str] = []

    @dramatiq.actor
    def note(name: str) -> None:
        runs.append(name)

    with working(broker):
        note.send("first")
        finish(broker)
        session = broker.session
        assert session is not None
        old = session.heartbeat.token
        broker.client.zrem("{worker}:leases", old)
        dramatiq.actor(actor_name="later", queue_name="later")(note.fn).send("later")
        wait_until(lambda: broker.client.sismember("{worker}:queues", "later"))
        assert broker.client.zscore("{worker}:leases", old) is None
        finish(broker, "later")
        assert session.heartbeat.token != old
    assert runs == ["first", "later"]


def test_a_worker_goes_on_when_the_server_has_lost_everything(broker: StreamBroker) -> None:
    """Streams, groups, leases and scripts are made anew."""
    note, runs = noting()
    with working(broker):
        note.send(1)
        finish(broker)
        broker.client.flushall()
        broker.client.script_flush()
        note.send(2)
        wait_until(lambda: runs == [1, 2])
        finish(broker)
        assert ask(broker.client, state_counts()) == {"completed": 1}


def test_health_says_what_goes_wrong_and_when_it_is_over(make_broker: MakeBroker) -> None:
    """The server goes away and comes back; work goes on by itself."""
    broker = make_broker(lease=timedelta(seconds=2))
    note, runs = noting()
    with working(broker):
        note.send(1)
        finish(broker)
        session = broker.session
        assert session is not None
        assert session.standing.errors == ()
        assert session.standing.lease_held
        server = EmbeddedServer(broker._settings)
        server.stop()
        wait_until(lambda: session.standing.errors)
        wait_until(lambda: not session.standing.lease_held)
        server.ensure_running()
        wait_until(lambda: session.standing.errors == () and session.standing.lease_held)
        note.send(2)
        finish(broker)
    assert runs == [1, 2]


# ---------------------------------------------------------------------- history


def in_step(client: RedisClient) -> dict[str, int]:
    """The number of records in each state, after a look at whether indexes and counts say the same."""
    ids = {key.decode().removeprefix("{worker}:m:") for key in client.scan_iter("{worker}:m:*", count=1000)}
    found = list(all_messages(client, MessageFilter()))
    assert {one.id for one in found} == ids
    assert len(found) == len(ids)
    counts: dict[str, int] = {}
    for one in found:
        counts[one.state] = counts.get(one.state, 0) + 1
    assert ask(client, state_counts()) == counts
    for state, number in counts.items():
        assert len(list(all_messages(client, MessageFilter(states=(state,))))) == number
    about: list[Any] = [client.zcard(key) for key in client.scan_iter("{worker}:s:*")]
    assert sum(about) == sum(bool(one.events and one.events[-1].subject) for one in found)
    return counts


def test_more_messages_than_are_to_be_kept_are_forgotten_oldest_first(make_broker: MakeBroker) -> None:
    """Of each state so many, and nothing that points to the others is left."""
    broker = make_broker(history_limit=50)

    @dramatiq.actor(max_retries=0)
    def note(number: int) -> None:
        with ProcessingStatusContext("note", number=number):
            if number % 2:
                raise ValueError

    messages = [note.send(number) for number in range(300)]
    with working(broker, threads=1):
        finish(broker)
    assert in_step(broker.client) == {"completed": 50, "dead": 50}
    assert {one.id for one in all_messages(broker.client, MessageFilter())} == {
        one.message_id for one in messages[200:]
    }


def test_messages_older_than_they_are_to_be_kept_are_forgotten(make_broker: MakeBroker) -> None:
    """Dead letters have a time of their own."""
    broker = make_broker(history_retention=timedelta(seconds=1), lease=timedelta(seconds=1))

    @dramatiq.actor(max_retries=0)
    def note(number: int) -> None:
        if number == 0:
            raise ValueError

    for number in range(20):
        note.send(number)
    with working(broker):
        finish(broker)
        assert in_step(broker.client) == {"completed": 19, "dead": 1}
        waiting = note.send_with_options(args=(1,), delay=3_600_000)
        wait_until(lambda: "completed" not in ask(broker.client, state_counts()))
        assert in_step(broker.client) == {"dead": 1, "delayed": 1}
        broker.client.zadd("{worker}:due", {waiting.message_id: 1})


def test_after_thousands_of_messages_of_all_kinds_in_two_workers_everything_adds_up(make_broker: MakeBroker) -> None:
    """Each has ended as it had to, each callback has come, and records, indexes and counts tell the same."""
    count = 2_500
    runs: Counter[int] = Counter()
    called_back: Counter[int] = Counter()

    def mixed(number: int) -> None:
        runs[number] += 1
        with ProcessingStatusContext("mixed", part=number % 10):
            if number % 11 == 0:
                raise NoContentFound("nothing")
            if number % 7 == 0:
                raise ValueError(str(number))
            if number % 5 == 0 and runs[number] < 3:
                raise RetryLater(timedelta(milliseconds=number % 50), "again")

    def back(message: dict[str, Any], result: object) -> None:
        called_back[message["args"][0]] += 1

    def declare(broker: StreamBroker) -> dramatiq.Actor[[int], None]:
        dramatiq.actor(broker=broker, actor_name="back", priority=-1)(back)
        return dramatiq.actor(broker=broker, actor_name="mixed", max_retries=2, on_success="back")(mixed)

    first, second = make_broker(), make_broker()
    actor, _ = declare(first), declare(second)
    messages = [
        actor.message_with_options(args=(number,), on_success="back" if number % 3 == 0 else None)
        for number in range(count)
    ]
    with working(first), working(second):
        first.enqueue_many(messages[::2])
        second.enqueue_many(messages[1::2], Terms(delay_ms=20))
        finish(first)
        finish(second)
    empty = {number for number in range(count) if number % 11 == 0}
    dead = {number for number in range(count) if number % 7 == 0} - empty
    again = {number for number in range(count) if number % 5 == 0} - empty - dead
    assert runs == {number: 3 if number in dead | again else 1 for number in range(count)}
    assert called_back == dict.fromkeys(set(range(count)) - empty - dead, 1) | dict.fromkeys(empty, 1)
    completed = count - len(empty) - len(dead) + called_back.total()
    assert in_step(first.client) == {"completed": completed, "skipped": len(empty), "dead": len(dead)}
    assert len(list(all_messages(first.client, MessageFilter(error="ValueError", states=("dead",))))) == len(dead)
    assert len(list(all_messages(first.client, MessageFilter(subject={"part": "3"}, actor="mixed")))) == count // 10


def test_a_finished_message_takes_less_than_700_bytes_with_its_whole_history(broker: StreamBroker) -> None:
    """Record, events and indexes; the live tail beside them is bounded, however many messages there are."""

    @dramatiq.actor
    def idle() -> None: ...

    def taken() -> int:
        broker.client.xtrim("{worker}:events", maxlen=0, approximate=False)
        return int(broker.client.info("memory")["used_memory"])

    count = 10_000
    with working(broker):
        broker.enqueue_many([idle.message() for _ in range(count)])
        finish(broker)
        before = taken()
        broker.enqueue_many([idle.message() for _ in range(count)])
        finish(broker)
        tail = broker.client.memory_usage("{worker}:events", samples=0)
        assert (taken() - before) / count < 700
    assert tail is not None
    assert tail < 8_000_000


def test_a_tail_that_is_followed_has_neither_gaps_nor_repeats(broker: StreamBroker) -> None:
    """While several threads work."""

    @dramatiq.actor
    def idle() -> None: ...

    start = position(broker.client)
    messages = broker.enqueue_many([idle.message() for _ in range(500)])
    seen: list[tuple[str | None, State]] = []
    with working(broker):
        for one in follow_events(broker.client, EventFilter(), after=start):
            event = one.event
            if event is not None:
                seen.append((event.message_id, event.state))
            if len(seen) == 2 * len(messages):
                break
    wanted = [(one.message_id, state) for one in messages for state in (State.STARTED, State.COMPLETED)]
    assert sorted(seen, key=str) == sorted(wanted, key=str)
    for message in messages:
        assert seen.index((message.message_id, State.STARTED)) < seen.index((message.message_id, State.COMPLETED))


def test_dramatiqs_own_broker_can_be_had_with_history(
    make_broker: Callable[..., dramatiq.Broker], own_writer: None
) -> None:
    """`WORKER_BROKER=redis-lists`, for moving over."""
    broker = make_broker(broker="redis-lists")
    assert isinstance(broker, RedisBroker)

    @dramatiq.actor(max_retries=1)
    def fragile(number: int) -> None:
        if number:
            raise ValueError

    messages = [fragile.send(number) for number in range(2)]
    with working(broker):
        client = connect(Settings.in_force())
        wait_until(lambda: ask(client, state_counts()) == {"completed": 1, "dead": 1})
    good, bad = (ask(client, one_message(one.message_id)) for one in messages)
    assert good is not None
    assert bad is not None
    assert states(good) == ["started", "completed"]
    assert states(bad) == ["started", "failed"] * 2
