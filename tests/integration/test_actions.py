"""What people can do to messages and queues, on a real server with real workers: each action does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.integration.test_gevent import gevent_worker
from tests.integration.test_worker_process import final
from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.indexes import indexes_agree
from tests.support.project import Project
from tests.support.stored import state_of, stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import Fatal, actor, run_in_thread_pool
from worker.attempts.runs import Runs
from worker.broker.streams import StreamBroker
from worker.broker.terms import Terms
from worker.errors import ConfigurationError, ServerUnreachable
from worker.history.answers import QueueInfo, StoredMessage
from worker.history.events import State
from worker.history.filters import MessageFilter
from worker.history.overview import audit_log, queues, workers
from worker.history.query import all_messages, ask, dead_by_cause, one_message, state_counts
from worker.operations import actions
from worker.operations.actions import (
    ACTIONS,
    Outcome,
    cancel,
    pause,
    preview,
    purge,
    replay,
    resume,
    run_now,
    this_user,
)
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

SOON = 60.0
JOIN_MS = 60_000
HOUR_MS = 3_600_000


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker whose failed messages are retried at once, and once."""
    with stream_broker(settings, **AT_ONCE, max_retries=1) as made:
        yield made


@pytest.fixture
def mended() -> threading.Event:
    """Set when what made messages fail is mended."""
    return threading.Event()


@pytest.fixture
def failing(broker: StreamBroker, mended: threading.Event) -> Iterator[dramatiq.Actor[[str], None]]:
    """An actor that fails until it is mended, with a worker that runs it."""

    @dramatiq.actor
    def fails(name: str) -> None:
        if not mended.is_set():
            raise ValueError(f"not yet, {name}")

    with working(broker):
        yield fails


def queue_of(client: RedisClient, name: str) -> QueueInfo:
    (found,) = [queue for queue in ask(client, queues()) if queue.name == name]
    return found


def dead_letters(client: RedisClient) -> list[StoredMessage]:
    return list(all_messages(client, MessageFilter(states=("dead",))))


def dead(client: RedisClient, failing: dramatiq.Actor[[str], None]) -> str:
    """A message that has become a dead letter; its id."""
    message_id = failing.send("you").message_id
    wait_until(lambda: message_id in [one.id for one in dead_letters(client)], SOON)
    return message_id


def told(message: StoredMessage) -> list[tuple[str, str | None]]:
    """What people asked for, and who."""
    return [(event.text, event.by) for event in message.events if event.state is State.REQUESTED]


# ---------------------------------------------------------------------- dead letters


def test_a_dead_letter_tells_all_that_happened(client: RedisClient, failing: dramatiq.Actor[[str], None]) -> None:
    """The message, and each attempt with its error and traceback."""
    message_id = dead(client, failing)
    [letter] = dead_letters(client)
    assert (letter.id, letter.actor, letter.queue, letter.attempts) == (message_id, "fails", "default", 2)
    assert b'"args":["you"]' in letter.payload
    errors = [event.error for event in letter.events if event.error is not None]
    assert [error.text for error in errors] == ["not yet, you"] * 2
    assert all("in fails" in error.traceback for error in errors)
    assert ask(client, dead_by_cause()) == {"ValueError": 1}


def test_a_replayed_dead_letter_runs_again_with_a_new_retry_budget(
    client: RedisClient, failing: dramatiq.Actor[[str], None], mended: threading.Event
) -> None:
    """It keeps its id, and its history goes on, with who asked."""
    message_id = dead(client, failing)
    assert replay(client, [message_id], by="ann") == Outcome("replay", (message_id,))
    wait_until(lambda: stored(client, message_id).attempts == 4 and ask(client, state_counts()) == {"dead": 1}, SOON)
    mended.set()
    assert replay(client, MessageFilter(error="ValueError")).done == (message_id,)
    wait_until(lambda: ask(client, state_counts()) == {"completed": 1}, SOON)
    found = stored(client, message_id)
    assert told(found) == [("replay", "ann"), ("replay", this_user())]
    assert found.events[-1].attempt == 5
    assert len({event.id for event in found.events}) == len(found.events)
    assert ask(client, dead_by_cause()) == {}
    indexes_agree(client)


def test_of_many_who_replay_a_dead_letter_one_does(
    client: RedisClient, failing: dramatiq.Actor[[str], None], mended: threading.Event
) -> None:
    """It runs once; the others are told that it is no dead letter any more."""
    message_id = dead(client, failing)
    mended.set()
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(replay(client, [message_id]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.done) for one in outcomes) == [0] * 7 + [1]
    assert all(one.done or set(one.refused) == {message_id} for one in outcomes)
    wait_until(lambda: ask(client, state_counts()) == {"completed": 1}, SOON)
    assert stored(client, message_id).attempts == 3
    assert len(ask(client, audit_log())) == 1


def test_a_purged_dead_letter_is_gone_with_all_that_points_to_it(
    client: RedisClient, failing: dramatiq.Actor[[str], None]
) -> None:
    """Once; the audit log knows that it was there."""
    message_id = dead(client, failing)
    assert purge(client, [message_id], by="bob").done == (message_id,)
    assert purge(client, [message_id]).refused == {message_id: "unknown"}
    assert replay(client, [message_id]).refused == {message_id: "unknown"}
    assert ask(client, one_message(message_id)) is None
    assert dead_letters(client) == []
    assert ask(client, state_counts()) == {}
    (entry,) = ask(client, audit_log())
    assert (entry.by, entry.action, entry.target, entry.count, entry.ids) == (
        "bob",
        "purge",
        message_id,
        1,
        (message_id,),
    )
    indexes_agree(client)


def test_what_is_in_another_state_is_refused_and_says_in_which(client: RedisClient, broker: StreamBroker) -> None:
    """A message that waits goes on waiting, one that has ended stays as it is; nothing is told of them."""

    @dramatiq.actor
    def idle() -> None: ...

    waits, ends = idle.send().message_id, idle.send().message_id
    cancel(client, [ends])
    for action in (replay, purge, run_now):
        assert action(client, [waits, ends, "nobody"]).refused == {
            waits: "queued",
            ends: "cancelled",
            "nobody": "unknown",
        }
    assert cancel(client, [ends]).refused == {ends: "cancelled"}
    assert ask(client, state_counts()) == {"queued": 1, "cancelled": 1}
    assert told(stored(client, waits)) == []
    assert [entry.action for entry in ask(client, audit_log())] == ["cancel"]


def test_an_id_that_is_not_in_a_list_is_that_of_one_message(client: RedisClient, broker: StreamBroker) -> None:
    """Not a list of letters."""

    @dramatiq.actor
    def idle() -> None: ...

    message_id = idle.send().message_id
    assert preview(client, "cancel", message_id).count == 1
    assert cancel(client, message_id).done == (message_id,)


def test_an_entry_that_could_not_be_read_is_purged_and_not_replayed(
    client: RedisClient, failing: dramatiq.Actor[[str], None]
) -> None:
    """Nobody can run it."""
    client.xadd("{worker}:q:default:normal:thread", {"something": "else"})
    wait_until(lambda: dead_letters(client), SOON)
    [letter] = dead_letters(client)
    outcome = replay(client, MessageFilter())
    assert outcome.done == ()
    assert "purge it" in outcome.refused[letter.id]
    assert purge(client, [letter.id]).done == (letter.id,)
    assert dead_letters(client) == []
    indexes_agree(client)


def test_fatal_is_a_dead_letter_at_once(client: RedisClient, broker: StreamBroker) -> None:
    """After one attempt."""

    @dramatiq.actor
    def hopeless() -> None:
        raise Fatal("never")

    with working(broker):
        hopeless.send()
        wait_until(lambda: [one.attempts for one in dead_letters(client)] == [1], SOON)
    assert ask(client, dead_by_cause()) == {"worker.errors.Fatal": 1}


def test_what_a_middleware_refuses_is_a_dead_letter_of_unknown_cause(client: RedisClient, broker: StreamBroker) -> None:
    """It has no error, and is counted all the same."""

    @dramatiq.actor(max_age=1)
    def outdated() -> None: ...

    message = outdated.message()
    broker.enqueue(message.copy(message_timestamp=message.message_timestamp - 1_000))
    with working(broker):
        wait_until(lambda: dead_letters(client), SOON)
    assert ask(client, dead_by_cause()) == {"unknown": 1}
    indexes_agree(client)
    assert len(purge(client, MessageFilter(states=("dead",))).done) == 1
    indexes_agree(client)


@pytest.mark.parametrize("most_named", [1_000, 2], ids=["named", "counted"])
def test_what_was_counted_is_what_is_done(
    client: RedisClient,
    broker: StreamBroker,
    failing: dramatiq.Actor[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    most_named: int,
) -> None:
    """Not what matches the filter only later, although it was enqueued before, be the counted few or many."""
    monkeypatch.setattr(actions, "MOST_NAMED", most_named)
    late = failing.send_with_options(args=("late",), delay=HOUR_MS).message_id
    counted = {dead(client, failing) for _ in range(4)}
    wanted = MessageFilter(actor="fails", states=("dead",))
    seen = preview(client, "purge", wanted)
    assert seen.count == 4
    assert {one.id for one in seen.messages} <= counted
    run_now(client, [late])
    wait_until(lambda: late in [one.id for one in dead_letters(client)], SOON)
    assert set(purge(client, seen.targets).done) == counted
    assert [one.id for one in dead_letters(client)] == [late]
    named = " ".join(one.id for one in seen.messages)
    assert ask(client, audit_log())[0].target == ("state=dead actor=fails" if most_named == 2 else named)


# ---------------------------------------------------------------------- many at once, who and when

BECOMES = {"replay": "queued", "purge": None, "cancel": "cancelled", "run_now": "queued"}


@pytest.mark.parametrize("by_filter", [False, True], ids=["ids", "filter"])
@pytest.mark.parametrize("action", BECOMES)
def test_a_preview_is_what_is_then_done_to_hundreds(
    client: RedisClient, broker: StreamBroker, action: str, by_filter: bool
) -> None:
    """In several batches, each in the audit log, and nothing else is touched."""

    @dramatiq.actor(queue_name="many", max_retries=0)
    def many() -> None:
        raise Fatal("never")

    @dramatiq.actor(queue_name="few", max_retries=0)
    def few() -> None:
        raise Fatal("never")

    delay = HOUR_MS if action == "run_now" else None
    others = [one.message_id for one in broker.enqueue_many([few.message() for _ in range(5)], Terms(delay_ms=delay))]
    ids = [one.message_id for one in broker.enqueue_many([many.message() for _ in range(250)], Terms(delay_ms=delay))]
    if action in {"replay", "purge"}:
        with working(broker, threads=4):
            wait_until(lambda: ask(client, state_counts()) == {"dead": 255}, SOON)
    before = {one: stored(client, one) for one in others}
    targets = MessageFilter(queue="many") if by_filter else ids
    seen = preview(client, action, targets, limit=20)
    assert (seen.action, seen.count, len(seen.messages)) == (action, 250, 20)
    assert {one.id for one in seen.messages} <= set(ids)
    assert ask(client, audit_log()) == ()
    outcome = ACTIONS[action](client, targets, by="ann")
    assert (outcome.action, set(outcome.done), outcome.refused) == (action, set(ids), {})
    assert preview(client, action, targets).count == 0
    assert ACTIONS[action](client, targets, by="bob").done == ()
    assert {one: stored(client, one) for one in others} == before
    for one in ids:
        found = ask(client, one_message(one))
        assert (found and found.state) == BECOMES[action]
        assert found is None or told(found) == [(action, "ann")]
    audit = ask(client, audit_log())
    assert [(entry.by, entry.action, entry.count) for entry in audit] == [
        ("ann", action, 50),
        ("ann", action, 100),
        ("ann", action, 100),
    ]
    assert sorted(one for entry in audit for one in entry.ids) == sorted(ids)
    named = "queue=many" if by_filter else " ".join(ids)[:1_000]
    assert {entry.target for entry in audit} == {named}
    indexes_agree(client)


def test_a_filter_may_name_states_that_an_action_is_not_for(client: RedisClient, broker: StreamBroker) -> None:
    """Of those with a failed attempt, the ones that are delayed can run now."""

    @dramatiq.actor(max_retries=5, min_backoff=HOUR_MS, max_backoff=HOUR_MS)
    def fails_later() -> None:
        raise ValueError("no")

    @dramatiq.actor
    def idle() -> None: ...

    with working(broker):
        failed = fails_later.send().message_id
        wait_until(lambda: state_of(client, failed) == "delayed", SOON)
    idle.send_with_options(delay=HOUR_MS)
    wanted = MessageFilter(states=("failed", "dead"))
    assert [one.id for one in preview(client, "run_now", wanted).messages] == [failed]
    assert run_now(client, wanted).done == (failed,)
    assert purge(client, wanted).done == ()
    assert ask(client, state_counts()) == {"queued": 1, "delayed": 1}


def test_a_server_that_is_gone_is_said_to_be(client: RedisClient, valkey: EmbeddedServer) -> None:
    """By every action, and by asking what one would do."""
    path = client.connection_pool.connection_kwargs["path"]
    away = RedisClient(client.namespace, unix_socket_path=f"{path}.gone", retry=Retry(NoBackoff(), 0))
    for action in ACTIONS.values():
        with pytest.raises(ServerUnreachable):
            action(away, ["nobody"])
    for name in ACTIONS:
        with pytest.raises(ServerUnreachable):
            preview(away, name, MessageFilter())
    for turn in (pause, resume):
        with pytest.raises(ServerUnreachable):
            turn(away, "default")
    away.close()


# ---------------------------------------------------------------------- cancelling what does not run


def noting(broker: StreamBroker, queue: str = "default") -> tuple[dramatiq.Actor[[str], None], list[str]]:
    """An actor, and the names with which it has run."""
    runs: list[str] = []

    @dramatiq.actor(queue_name=queue, actor_name=f"note_{queue}")
    def note(name: str) -> None:
        runs.append(name)

    return note, runs


def test_a_message_that_waits_never_runs_when_it_is_cancelled(client: RedisClient, broker: StreamBroker) -> None:
    """Its unique key is free at once, and the queue's depth and age are right although its entry is still there."""
    note, runs = noting(broker)
    message = broker.enqueue_many([note.message("cancelled")], Terms(key="key", ttl_ms=HOUR_MS))[0]
    ids = [message.message_id, *(note.send("cancelled").message_id for _ in range(150))]
    assert len(cancel(client, ids).done) == 151
    assert [queue_of(client, "default").queued, queue_of(client, "default").oldest_seconds] == [0, None]
    again = broker.enqueue_many([note.message("again")], Terms(key="key", ttl_ms=HOUR_MS))[0]
    assert again.message_id != message.message_id
    found = queue_of(client, "default")
    assert found.queued == 1
    assert found.oldest_seconds is not None
    with working(broker):
        wait_until(lambda: state_of(client, again.message_id) == "completed", SOON)
        broker.join("default", timeout=JOIN_MS)
    assert runs == ["again"]
    assert ask(client, state_counts()) == {"cancelled": 151, "completed": 1}
    indexes_agree(client)


def test_a_delayed_message_never_runs_when_it_is_cancelled(client: RedisClient, broker: StreamBroker) -> None:
    """Nor does it hold up others."""
    note, runs = noting(broker)
    with working(broker):
        cancelled = note.send_with_options(args=("cancelled",), delay=400).message_id
        later = note.send_with_options(args=("later",), delay=500).message_id
        assert cancel(client, [cancelled]).done == (cancelled,)
        wait_until(lambda: state_of(client, later) == "completed", SOON)
    assert runs == ["later"]
    assert state_of(client, cancelled) == "cancelled"
    indexes_agree(client)


def test_a_message_that_was_taken_and_not_begun_never_runs_when_it_is_cancelled(
    client: RedisClient, broker: StreamBroker
) -> None:
    """The process that has it is told in time."""
    note, runs = noting(broker)
    gate, began = threading.Event(), threading.Event()

    @dramatiq.actor
    def gated() -> None:
        began.set()
        gate.wait(SOON)

    # What is taken ahead follows from how quick attempts were.
    messages = [*(note.message("before") for _ in range(300)), gated.message(), *(note.message("x") for _ in range(40))]
    sent = [one.message_id for one in broker.enqueue_many(messages)]
    with working(broker, threads=1):
        assert began.wait(SOON)
        session = broker.session
        assert session is not None
        held = [one for one in sent[301:] if session.holdings.holds(one) is not None]
        assert held, "nothing was taken ahead"
        assert set(cancel(client, held).done) == set(held)
        ahead = [one for one in map(session.holdings.holds, held) if one is not None]
        wait_until(lambda: all(map(session.holdings.is_cancelled, ahead)), SOON)
        gate.set()
        broker.join("default", timeout=JOIN_MS)
    assert len(runs) == 340 - len(held)
    assert {state_of(client, one) for one in held} == {"cancelled"}
    assert {stored(client, one).attempts for one in held} == {0}
    indexes_agree(client)


# ---------------------------------------------------------------------- cancelling what runs


class Running:
    """What an actor tells while it runs."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cleaned = threading.Event()


def idles(tell: Running, loop: Any) -> dramatiq.Actor[[], None]:
    @actor(loop=loop)
    async def idle() -> None:
        tell.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            tell.cleaned.set()

    return idle


def busy(tell: Running, _: Any) -> dramatiq.Actor[[], None]:
    @actor
    def work() -> None:
        tell.began.set()
        try:
            for number in itertools.count():
                str(number)
        finally:
            tell.cleaned.set()

    return work


def in_pool(tell: Running, loop: Any) -> dramatiq.Actor[[], None]:
    def block() -> None:
        tell.began.set()
        for _ in range(30):
            time.sleep(0.01)

    @actor(loop=loop)
    async def blocks() -> None:
        try:
            await run_in_thread_pool(block)
        finally:
            tell.cleaned.set()

    return blocks


KINDS: dict[str, tuple[Callable[[Running, Any], dramatiq.Actor[[], None]], str]] = {
    "coroutine, shared loop": (idles, "shared"),
    "coroutine, new loop": (idles, "new"),
    "sync": (busy, ""),
    "blocking call, shared loop": (in_pool, "shared"),
    "blocking call, new loop": (in_pool, "new"),
}


@pytest.mark.clock
@pytest.mark.parametrize("kind", KINDS)
def test_an_attempt_that_is_cancelled_cleans_up_and_ends_within_a_second(
    client: RedisClient, broker: StreamBroker, kind: str
) -> None:
    """CANCELLED on request, not retried, and its thread runs the next message."""
    make, loop = KINDS[kind]
    tell = Running()
    waits, (note, runs) = make(tell, loop), noting(broker)
    with working(broker, threads=1):
        message_id = waits.send().message_id
        assert tell.began.wait(SOON)
        wait_until(lambda: state_of(client, message_id) == "running", SOON)
        asked_at = time.monotonic()
        assert cancel(client, [message_id], by="ann").done == (message_id,)
        wait_until(lambda: state_of(client, message_id) == "cancelled", SOON)
        assert time.monotonic() - asked_at < 1
        note.send("next")
        wait_until(lambda: runs == ["next"], SOON)
    assert tell.cleaned.is_set()
    found = stored(client, message_id)
    assert [event.state for event in found.events] == [State.STARTED, State.REQUESTED, State.CANCELLED]
    assert "on request" in found.events[-1].text
    assert told(found) == [("cancel", "ann")]
    assert found.attempts == 1
    indexes_agree(client)


def test_an_attempt_that_completes_in_spite_of_it_has_completed(client: RedisClient, broker: StreamBroker) -> None:
    """Whoever swallows the cancellation decides."""
    began = threading.Event()

    @actor
    async def stubborn() -> None:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    @dramatiq.actor
    def stubborn_sync() -> None:
        began.set()
        with contextlib.suppress(BaseException):
            while True:
                time.sleep(0.001)

    with working(broker):
        for waits in (stubborn, stubborn_sync):
            began.clear()
            message_id = waits.send().message_id
            assert began.wait(SOON)
            wait_until(lambda one=message_id: state_of(client, one) == "running", SOON)  # type: ignore[misc]
            cancel(client, [message_id])
            wait_until(lambda one=message_id: state_of(client, one) not in {"running", "queued"}, SOON)  # type: ignore[misc]
    assert ask(client, state_counts()) == {"cancelled": 1, "completed": 1}, "the interrupt of a sync actor leaves it"


class Between(dramatiq.Middleware):
    """Holds an attempt up where it has begun for the session, and not yet for who cancels it."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self.reached.set()
        assert self.go_on.wait(SOON)


def test_an_attempt_that_is_cancelled_as_it_begins_is_cancelled(client: RedisClient, broker: StreamBroker) -> None:
    """Whatever of the middleware it has passed."""
    between, tell = Between(), Running()
    broker.add_middleware(between, after=Runs)
    waits = idles(tell, "shared")
    with working(broker, threads=1):
        message_id = waits.send().message_id
        assert between.reached.wait(SOON)
        wait_until(lambda: state_of(client, message_id) == "running", SOON)
        assert broker.session is not None
        taken = broker.session.holdings.holds(message_id)
        assert taken is not None
        run = taken.run
        assert run is not None
        cancel(client, [message_id])
        wait_until(lambda: run.cancelled, SOON)
        between.go_on.set()
        wait_until(lambda: state_of(client, message_id) == "cancelled", SOON)
    assert stored(client, message_id).events[-1].state is State.CANCELLED


@pytest.fixture
def slow_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hears of the begin of an attempt a second later, so that a cancel comes before that."""
    monkeypatch.setattr("worker.broker.committer.GATHER", 1.0)


@pytest.mark.usefixtures("slow_to_tell")
@pytest.mark.parametrize("kind", ["coroutine, shared loop", "sync"])
def test_what_ran_is_told_although_it_was_cancelled_before_the_server_knew_of_it(
    client: RedisClient, broker: StreamBroker, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """With its begin and its end, and nobody says that another process has it."""
    make, loop = KINDS[kind]
    tell = Running()
    waits = make(tell, loop)
    with working(broker, threads=1):
        message_id = waits.send().message_id
        assert tell.began.wait(SOON)
        assert cancel(client, [message_id], by="ann").done == (message_id,)
        assert state_of(client, message_id) == "cancelled"
        wait_until(lambda: len(stored(client, message_id).events) == 3, SOON)
        assert broker.session is not None
        assert broker.session.standing.ends_refused == 0
    assert tell.cleaned.is_set()
    found = stored(client, message_id)
    assert [event.state for event in found.events] == [State.REQUESTED, State.STARTED, State.CANCELLED]
    assert "on request" in found.events[-1].text
    assert (found.state, found.attempts) == ("cancelled", 1)
    assert "another process" not in capsys.readouterr().err
    assert not client.keys("*:cancel:*")
    indexes_agree(client)


@pytest.mark.usefixtures("slow_to_tell")
def test_what_completes_although_it_was_cancelled_before_the_server_knew_of_it_has_completed(
    client: RedisClient, broker: StreamBroker
) -> None:
    """As whoever swallows the cancellation later."""
    began = threading.Event()

    @dramatiq.actor
    def stubborn() -> None:
        began.set()
        with contextlib.suppress(BaseException):
            while True:
                time.sleep(0.001)

    with working(broker, threads=1):
        message_id = stubborn.send().message_id
        assert began.wait(SOON)
        cancel(client, [message_id])
        assert state_of(client, message_id) == "cancelled"
        wait_until(lambda: state_of(client, message_id) == "completed", SOON)
    states = [event.state for event in stored(client, message_id).events]
    assert states == [State.REQUESTED, State.STARTED, State.COMPLETED]
    indexes_agree(client)


def test_who_hears_late_of_a_cancellation_does_not_cancel_a_later_delivery(
    client: RedisClient, broker: StreamBroker
) -> None:
    """A message that has ended meanwhile and was replayed is nobody's business."""
    tell = Running()
    waits = idles(tell, "shared")
    with working(broker):
        message_id = waits.send().message_id
        assert tell.began.wait(SOON)
        wait_until(lambda: state_of(client, message_id) == "running", SOON)
        fence = stored(client, message_id).fence
        late: Any = client.xadd("{worker}:orders", {"cancel": f"{message_id} {fence - 1}"})
        session = broker.session
        assert session is not None
        wait_until(lambda: session.heartbeat._order == late.decode(), SOON)
        taken = session.holdings.holds(message_id)
        assert taken is not None
        assert taken.run is not None
        assert not taken.run.cancelled
        cancel(client, [message_id])
        wait_until(lambda: state_of(client, message_id) == "cancelled", SOON)


@pytest.mark.parametrize("retries", [0, 5])
def test_what_was_cancelled_and_fails_in_its_clean_up_is_cancelled(
    client: RedisClient, broker: StreamBroker, retries: int
) -> None:
    """It is neither retried nor a dead letter, and its history tells the error."""
    gate, began = threading.Event(), threading.Event()
    runs = []

    @dramatiq.actor(max_retries=retries)
    def fails() -> None:
        runs.append(1)
        began.set()
        try:
            while not gate.is_set():
                time.sleep(0.001)
        except BaseException as error:
            raise ValueError("something else") from error

    with working(broker):
        message_id = broker.enqueue_many([fails.message()], Terms(key="key", ttl_ms=HOUR_MS))[0].message_id
        assert began.wait(SOON)
        wait_until(lambda: state_of(client, message_id) == "running", SOON)
        cancel(client, [message_id])
        wait_until(lambda: state_of(client, message_id) == "cancelled", SOON)
    assert runs == [1]
    assert not client.exists("{worker}:u:key")
    last = stored(client, message_id).events[-1]
    assert (last.state, last.text) == (State.CANCELLED, "on request")
    assert last.error is not None
    assert last.error.text == "something else"
    indexes_agree(client)


def test_cancelling_at_any_moment_hits_the_one_that_was_meant_and_no_other(
    client: RedisClient, broker: StreamBroker
) -> None:
    """Thousands of short messages, some of which fail and are retried; hundreds are cancelled wherever they are."""
    chance = random.Random(3)
    begun: list[str] = []
    runs: dict[str, int] = {}

    @dramatiq.actor
    def sync(name: str, ms: float) -> None:
        begun.append(name)
        runs[name] = runs.get(name, 0) + 1
        time.sleep(ms / 1000)
        if name.startswith("fails") and runs[name] == 1:
            raise ValueError("once")

    @actor
    async def short(name: str, ms: float) -> None:
        begun.append(name)
        runs[name] = runs.get(name, 0) + 1
        await asyncio.sleep(ms / 1000)
        if name.startswith("fails") and runs[name] == 1:
            raise ValueError("once")

    def some(first: int) -> dict[str, str]:
        """Sends some hundred messages; their ids by their names."""
        names = [f"{chance.choice(['ok', 'ok', 'fails'])}{number}" for number in range(first, first + 500)]
        kinds = [short if chance.random() < 0.3 else sync for _ in names]
        made = [kind.message(name, chance.choice([0, 0, 0.3, 1, 3])) for kind, name in zip(kinds, names, strict=True)]
        return dict(zip(names, [one.message_id for one in broker.enqueue_many(made)], strict=True))

    by_name: dict[str, str] = {}
    asked: set[str] = set()
    told_to_end: set[str] = set()
    with working(broker, threads=4):
        while len(by_name) < 2_000 or len(told_to_end) < 150:
            sent = some(len(by_name))
            by_name |= sent
            waiting = list(sent.values())
            while ask(client, state_counts()).keys() & {"queued", "delayed", "running"}:
                recent = [by_name[name] for name in begun[-3:]]
                wanted = [one for one in [*recent, chance.choice(waiting)] if one not in asked]
                asked.update(wanted)
                told_to_end.update(cancel(client, wanted).done)
        broker.join("default", timeout=JOIN_MS)
    found = indexes_agree(client)
    assert max(runs.values()) <= 2
    for name, message_id in by_name.items():
        if message_id in told_to_end:
            assert ("cancel", this_user()) in told(found[message_id])
            ended_on_request(found[message_id])
        else:
            states = [event.state for event in found[message_id].events if event.state.is_final]
            assert states == [State.FAILED] * name.startswith("fails") + [State.COMPLETED]


def ended_on_request(message: StoredMessage) -> None:
    """Or before that: CANCELLED is the last event there is, and goes with the state."""
    ends = [event.state for event in message.events if event.state.is_final]
    if message.state == "completed":
        assert State.CANCELLED not in ends
        assert ends[-1] is State.COMPLETED
    else:
        assert message.state == "cancelled"
        assert State.COMPLETED not in ends
        assert State.CANCELLED not in ends[:-1]


# ---------------------------------------------------------------------- pausing


def test_an_idle_worker_takes_nothing_of_a_paused_queue_until_it_is_resumed(
    client: RedisClient, broker: StreamBroker
) -> None:
    """The other queue's messages run, before and after; resuming is noticed at once."""
    one, of_one = noting(broker, "one")
    two, of_two = noting(broker, "two")
    with working(broker):
        one.send("before")
        two.send("before")
        wait_until(lambda: of_one == of_two == ["before"], SOON)
        assert pause(client, "one", by="ann")
        assert not pause(client, "one", by="bob")
        paused = queue_of(client, "one").pause
        assert paused is not None
        assert paused.by == "ann"
        assert queue_of(client, "two").pause is None
        waits = one.send("paused").message_id
        for number in range(100):
            two.send(str(number))
        wait_until(lambda: len(of_two) == 101, SOON)
        assert of_one == ["before"]
        assert state_of(client, waits) == "queued"
        resumed_at = time.monotonic()
        assert resume(client, "one", by="bob")
        assert not resume(client, "one")
        wait_until(lambda: of_one == ["before", "paused"], SOON)
        assert time.monotonic() - resumed_at < 2
    assert queue_of(client, "one").pause is None
    assert [(entry.by, entry.action, entry.target) for entry in ask(client, audit_log())] == [
        ("bob", "resume", "one"),
        ("ann", "pause", "one"),
    ]
    indexes_agree(client)


def test_under_load_nothing_of_a_paused_queue_begins_but_what_was_held(
    client: RedisClient, broker: StreamBroker
) -> None:
    """What workers had taken when it was paused ends; what was on its way to them goes back."""
    begun: list[str] = []

    @dramatiq.actor(queue_name="one")
    def work(name: str) -> None:
        begun.append(name)
        time.sleep(0.004)  # so long that far fewer than all are taken ahead

    two, of_two = noting(broker, "two")
    with working(broker, threads=4):
        for round_ in range(5):
            names = [f"{round_}.{number}" for number in range(400)]
            broker.enqueue_many([work.message(name) for name in names])
            wait_until(lambda: len(begun) % 400 > 50, SOON)
            pause(client, "one")
            held = pending(client, "one")
            before = set(begun)
            wait_until(lambda: queue_of(client, "one").running == 0 and not pending(client, "one"), SOON)
            two.send("x")
            wait_until(lambda expected=round_ + 1: len(of_two) == expected, SOON)  # type: ignore[misc]
            late = set(begun) - before
            assert len(late) <= len(held)
            assert late <= {arguments_of(client, one) for one in held}
            waiting = queue_of(client, "one").queued
            assert waiting > 0, "nothing was left to hold back"
            assert len(begun) == 400 * (round_ + 1) - waiting
            resume(client, "one")
            wait_until(lambda expected=400 * (round_ + 1): len(begun) == expected, SOON)  # type: ignore[misc]
        broker.join("one", timeout=JOIN_MS)
    assert len(set(begun)) == len(begun) == 2_000
    indexes_agree(client)


def pending(client: RedisClient, queue: str) -> list[str]:
    """The messages of a queue that processes have been given."""
    found = []
    for priority in ("back", "high", "normal", "low"):
        stream = f"{{worker}}:q:{queue}:{priority}:thread"
        taken: Any = client.xpending_range(stream, "workers", "-", "+", 10_000)
        for one in taken:
            entries: Any = client.xrange(stream, one["message_id"], one["message_id"])
            found += [fields[b"i"].decode() for _, fields in entries]
    return found


def arguments_of(client: RedisClient, message_id: str) -> str:
    return stored(client, message_id).arguments.strip('"')


@pytest.mark.own_server
def test_a_pause_outlives_server_and_worker(settings: Settings, valkey: EmbeddedServer, broker: StreamBroker) -> None:
    """After both were started anew, only resuming has the queue worked on."""
    one, of_one = noting(broker, "one")
    two, of_two = noting(broker, "two")
    client = connect(settings)
    with working(broker):
        one.send("before")
        wait_until(lambda: of_one, SOON)
        pause(client, "one")
    one.send("paused")
    valkey.stop()
    valkey.ensure_running()
    two.send("after")
    with working(broker):
        wait_until(lambda: of_two == ["after"], SOON)
        assert of_one == ["before"]
        resume(client, "one")
        wait_until(lambda: of_one == ["before", "paused"], SOON)
    client.close()


def test_delayed_messages_that_become_due_in_a_paused_queue_wait_there(
    client: RedisClient, broker: StreamBroker
) -> None:
    """They are queued, and run when it is resumed; so do those that are run now."""
    one, of_one = noting(broker, "one")
    two, of_two = noting(broker, "two")
    with working(broker):
        two.send("before")
        wait_until(lambda: of_two, SOON)
        one.send("before")
        wait_until(lambda: of_one, SOON)
        pause(client, "one")
        due = one.send_with_options(args=("due",), delay=50).message_id
        far = one.send_with_options(args=("far",), delay=HOUR_MS).message_id
        run_now(client, [far])
        wait_until(lambda: state_of(client, due) == state_of(client, far) == "queued", SOON)
        two.send("after")
        wait_until(lambda: len(of_two) == 2, SOON)
        assert of_one == ["before"]
        resume(client, "one")
        wait_until(lambda: sorted(of_one) == ["before", "due", "far"], SOON)
    indexes_agree(client)


def test_a_worker_all_of_whose_queues_are_paused_is_back_when_one_is_resumed(
    client: RedisClient, broker: StreamBroker
) -> None:
    """At once, and for that queue alone."""
    one, of_one = noting(broker, "one")
    two, of_two = noting(broker, "two")
    one.send("x")
    two.send("x")
    for queue in ("one", "two"):
        pause(client, queue)
    with working(broker):
        wait_until(lambda: broker.session is not None and broker.session.standing.lease_held, SOON)
        assert resume(client, "two")
        resumed_at = time.monotonic()
        wait_until(lambda: of_two == ["x"], SOON)
        assert time.monotonic() - resumed_at < 2
        assert of_one == []
        resume(client, "one")
        wait_until(lambda: of_one == ["x"], SOON)


def test_a_reader_that_cannot_be_roused_costs_no_lease(
    client: RedisClient, broker: StreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever holds up the thread that takes messages, the one that keeps the lease goes on."""
    broker._settings = broker._settings.model_copy(update={"lease": timedelta(seconds=1)})
    one, of_one = noting(broker, "one")
    with working(broker):
        one.send("before")
        wait_until(lambda: of_one == ["before"], SOON)
        session = broker.session
        assert session is not None
        wait_until(lambda: session._reader._waits, SOON)
        monkeypatch.setattr(session._reader, "_connection_id", 999_999)  # nobody's: it goes on waiting
        pause(client, "one")
        infos = [ask(client, workers())[0]]

        def has_gone_on() -> bool:
            infos.append(ask(client, workers())[0])
            return infos[-1].heartbeat - infos[0].heartbeat > timedelta(seconds=1.5)

        wait_until(has_gone_on, SOON)
        assert all(info.alive for info in infos)


def test_a_queue_that_there_is_not_cannot_be_paused(client: RedisClient, broker: StreamBroker) -> None:
    """Whoever asks is told which there are."""
    note, _ = noting(broker, "one")
    note.send("x")
    for turn in (pause, resume):
        with pytest.raises(ConfigurationError, match="no queue 'tow'; there are: one"):
            turn(client, "tow")


# ---------------------------------------------------------------------- gevent

GREENLETS = """
import asyncio
import time
from pathlib import Path

import dramatiq

from worker import actor, create_broker

dramatiq.set_broker(create_broker())


async def idle(file: str) -> None:
    Path(file + ".started").touch()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        Path(file).touch()


@actor(loop="new")
async def new(file: str) -> None:
    await idle(file)


@actor(loop="shared")
async def shared(file: str) -> None:
    await idle(file)


@actor
def in_turns(file: str) -> None:
    Path(file + ".started").touch()
    try:
        while True:
            time.sleep(0.01)
    finally:
        Path(file).touch()
"""


@pytest.mark.clock
def test_under_gevent_attempts_are_cancelled_too(tmp_path: Path) -> None:
    """Coroutines through their loops, a sync actor where its greenlet waits; each cleans up."""
    project = Project(tmp_path)
    (tmp_path / "actors.py").write_text(GREENLETS)
    try:
        with gevent_worker(project, "actors", threads=4):
            for name in ("new", "shared", "in_turns"):
                file = tmp_path / name
                message_id = project.send(name, str(file))
                wait_until(Path(f"{file}.started").exists, SOON)
                wait_until(lambda one=message_id: state_of(project.client, one) == "running", SOON)  # type: ignore[misc]
                asked_at = time.monotonic()
                assert cancel(project.client, [message_id]).done == (message_id,)
                wait_until(lambda one=message_id: state_of(project.client, one) == "cancelled", SOON)  # type: ignore[misc]
                assert time.monotonic() - asked_at < 1
                assert final(project, message_id).state is State.CANCELLED
                assert file.exists()
    finally:
        project.down()
