"""Every question to the history, against what a look through all records would say, on a real server."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import itertools
import math
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.brokers import AT_ONCE, stream_broker
from tests.support.indexes import indexes_agree, stored_messages
from tests.support.waiting import wait_until
from tests.support.workers import idle_worker
from worker import Fatal, NoContentFound, RetryLater, actor, current_attempt
from worker.broker import sending
from worker.broker.envelope import Parcel
from worker.broker.streams import StreamBroker
from worker.errors import ServerUnreachable
from worker.history import overview, query, writer
from worker.history.answers import StoredMessage
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import actor_rates, audit_log, queues, windows, workers
from worker.history.query import (
    Question,
    aall_messages,
    aask,
    all_messages,
    ask,
    count_messages,
    count_of_messages,
    dead_by_cause,
    delayed_messages,
    newest_failures,
    one_message,
    page_of_messages,
    running_messages,
    state_counts,
)
from worker.history.states import ATTEMPT_MARKS, MessageState
from worker.history.tail import BEGINNING, afollow_events, follow_events
from worker.history.timeline import attempts_of
from worker.operations.actions import cancel, pause, run_now
from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.server.keys import Namespace
from worker.server.scripts import Script
from worker.settings import Settings

SOON = 60.0
NAMESPACE = Namespace("worker")
START = 1_700_000_000_000
"""When the clock of a server begins that is told what time it is."""

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NO_LIMITS = [30 * 86_400, *([10**15, 10**9] * 4), -1, -1]

ACTORS = ("merge", "summarize")
QUEUES = ("cpu", "network")
ERRORS = ("ValueError", "a.b.ValueError", "a.Broken")
SUBJECTS: tuple[dict[str, str], ...] = ({"n": "1"}, {"n": "2"}, {"n": "2", "of": "x"}, {"of": "x"}, {})


# ---------------------------------------------------------------------- a server that is told what time it is


def told(script: Script, **numbers: int) -> Script:
    """The script with a clock that is a key of the server, and other sizes than in earnest."""
    made = copy.copy(script)
    clock = r"local now = clock\[1\] \* 1000 \+ math.floor\(clock\[2\] / 1000\)"
    made._text, found = re.subn(clock, "local now = tonumber(call('GET', 'test:now'))", made._text)
    assert found == 1
    for name, number in numbers.items():
        made._text, found = re.subn(rf"\blocal {name} = \d+", f"local {name} = {number}", made._text)
        assert found == 1, name
    made._hash = hashlib.sha1(made._text.encode()).hexdigest()
    return made


class Clocked:
    """A server whose history is written, and asked, at any time a test wants it to be."""

    def __init__(self, client: RedisClient, **sizes: int) -> None:
        self.client = client
        self._note = told(writer._WRITE, **{name: sizes[name] for name in sizes if name == "SEGMENT"})
        self._enqueue = told(sending._ENQUEUE, **{name: sizes[name] for name in sizes if name == "SEGMENT"})
        self._asked = {
            script._hash: told(
                script, **{name: size for name, size in sizes.items() if f"local {name} =" in script._text}
            )
            for script in (query._FIND, query._FAILED, query._DUE, overview._COUNTERS, query._DEATHS, query._STATES)
        }
        self.numbers = itertools.count()
        self.failed: list[str] = []
        self.at(START)

    def at(self, now: int) -> None:
        """Sets the clock."""
        self.now = now
        self.client.set("test:now", now)

    def note(self, *told: tuple[StatusEvent, str]) -> None:
        """Stores events in one go, each with the state that it leaves its message in."""
        arguments: list[Any] = [f"test:{next(self.numbers)}", *NO_LIMITS]
        for event, becomes in told:
            arguments += writer._arguments_of(event, becomes)
            if event.state in (State.FAILED, State.LOST):
                self.failed.append(str(event.message_id))
        assert self._note.run(self.client, arguments) == 1

    def enqueue(self, message_id: str, queue: str, actor: str, later: int = -1) -> None:
        self._enqueue.run(self.client, [-1, 1, *Parcel(message_id, b"{}", queue, "normal", actor, "", later)])

    def ask(self, question: Question[Any]) -> Any:
        return ask(self.client, replace(question, script=self._asked[question.script._hash]))

    def pages(self, wanted: MessageFilter, limit: int, within: Sequence[str] = ()) -> list[str]:
        """The ids that all pages together have."""
        found: list[str] = []
        cursor = None
        for _ in range(10_000):
            page = self.ask(page_of_messages(wanted, limit=limit, cursor=cursor, within=within))
            assert len(page.messages) <= limit
            found += [message.id for message in page.messages]
            if page.cursor is None:
                return found
            assert cursor is None or page.cursor < cursor, "the next page begins where this one did"
            cursor = page.cursor
        raise AssertionError("the pages do not end")

    def count(self, wanted: MessageFilter, within: Sequence[str] = ()) -> int:
        total: int = 0
        cursor = None
        for _ in range(10_000):
            found = self.ask(count_of_messages(wanted, cursor=cursor, within=within))
            total += found.count
            if found.cursor is None:
                return total
            assert cursor is None or found.cursor < cursor
            cursor = found.cursor
        raise AssertionError("the count does not end")


def event_of(message_id: str, state: State, attempt: int = 1, **values: Any) -> StatusEvent:
    own = f"{message_id}:{attempt}{'.end' if state.is_final else ''}"
    about = {"actor": "merge", "queue": "cpu"} | values
    return StatusEvent(
        event=f"{about['actor']}.{state}", state=state, id=own, message_id=message_id, attempt=attempt, **about
    )


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClient]:
    """A client of a server that these tests share."""
    own = Settings(data_dir=tmp_path_factory.mktemp("questions"), redis_url=None)
    server = EmbeddedServer(own)
    server.ensure_running()
    opened = connect(own)
    opened.config_set("appendonly", "no")
    yield opened
    opened.close()
    server.stop()


@pytest.fixture
def clocked(shared_client: RedisClient) -> Clocked:
    """An empty server with the sizes that it has in earnest."""
    shared_client.flushall()
    return Clocked(shared_client)


def moment(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


# ---------------------------------------------------------------------- messages by filters, page by page


def matches(message: StoredMessage, wanted: MessageFilter) -> bool:
    """What a look through all records says."""
    ends = {event.state.value for event in message.events}
    types = {event.error.type for event in message.events if event.error is not None}
    return (
        (not wanted.states or message.state in wanted.states or bool(ends & set(wanted.states) & set(ATTEMPT_MARKS)))
        and wanted.actor in (None, message.actor)
        and wanted.queue in (None, message.queue)
        and (wanted.error is None or any(f".{one}".endswith(f".{wanted.error}") for one in types))
        and (wanted.since is None or message.since >= wanted.since)
        and (wanted.until is None or message.since <= wanted.until)
        and wanted.subject.items() <= message.subject.items()
    )


@dataclass
class Population:
    """Messages of all kinds, on a server with small segments that soon answers in parts."""

    clocked: Clocked
    messages: list[StoredMessage] = field(default_factory=list)

    def last_failure(self, message_id: str) -> int:
        """How many failures of any message came after the last one of this message."""
        return self.clocked.failed[::-1].index(message_id)


@pytest.fixture(scope="module")
def population(shared_client: RedisClient) -> Population:
    """Some hundred messages, made and changed over some hours, also long after they were made."""
    shared_client.flushall()
    clocked = Clocked(shared_client, SEGMENT=32, LOOKS=60, RARE=25, MANY_IDS=5)
    chance = random.Random(11)
    ids: list[tuple[str, str, str]] = []
    for number in range(500):
        clocked.at(clocked.now + chance.choice([0, 1, 1_000, MINUTE]))
        one = f"m{number}", chance.choice(QUEUES), chance.choice(ACTORS)
        ids.append(one)
        if chance.random() < 0.3:
            clocked.enqueue(*one, later=chance.choice([-1, -1, 0, MINUTE, DAY]))
        else:
            _tell(clocked, one, chance)
        if chance.random() < 0.4:
            _tell(clocked, chance.choice(ids), chance)
    made = stored_messages(shared_client)
    assert len(made) == 500
    assert {message.state for message in made.values()} == set(MessageState)
    return Population(clocked, sorted(made.values(), key=lambda message: -message.number))


def _tell(clocked: Clocked, one: tuple[str, str, str], chance: random.Random) -> None:
    message_id, queue, of_actor = one
    state = chance.choice(
        [State.STARTED, State.COMPLETED, State.SKIPPED, State.FAILED, State.FAILED, State.SNOOZED, State.CANCELLED]
    )
    becomes = {
        State.STARTED: chance.choice(["", "running"]),
        State.FAILED: chance.choice(["dead", "delayed", "queued"]),
        State.SNOOZED: "delayed",
    }.get(state, state.value)
    about = SUBJECTS[int(message_id[1:]) % len(SUBJECTS)]
    values: dict[str, Any] = {"subject": about, "queue": queue, "actor": of_actor}
    if state in (State.FAILED, State.SNOOZED):
        values["error"] = ErrorInfo(chance.choice(ERRORS), "", "")
    clocked.note((event_of(message_id, state, **values), becomes))


a_moment = st.none() | st.integers(-MINUTE, 500 * MINUTE).map(lambda ms: moment(START + ms))
filters = st.builds(
    MessageFilter,
    states=st.lists(st.sampled_from([*MessageState, *ATTEMPT_MARKS]), max_size=3, unique=True).map(tuple),
    actor=st.none() | st.sampled_from([*ACTORS, "nobody"]),
    queue=st.none() | st.sampled_from(QUEUES),
    subject=st.sampled_from([*SUBJECTS, {}, {}, {"n": "3"}]),
    error=st.none() | st.none() | st.sampled_from([*ERRORS, "Broken", "b.ValueError", "Error"]),
    since=a_moment,
    until=a_moment,
)


def only_failed(wanted: MessageFilter, within: Sequence[str]) -> bool:
    failed = {"failed", "lost", "dead"}
    return bool((wanted.states and set(wanted.states) <= failed) or (within and set(within) <= failed))


def test_filters_find_what_a_look_through_all_records_would_find(population: Population) -> None:
    """In any combination and pages of any size: none twice, none missing; and as many are counted.

    The newest comes first, or the one that failed last where only messages that failed are asked for.
    """

    @hypothesis_settings(max_examples=200, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(
        wanted=filters,
        limit=st.sampled_from([1, 2, 7, 50, 1_000]),
        within=st.sampled_from([(), (), ("dead",), ("queued", "delayed", "running")]),
    )
    def found_as_expected(wanted: MessageFilter, limit: int, within: tuple[str, ...]) -> None:
        found = [one.id for one in population.messages if matches(one, wanted) and (not within or one.state in within)]
        expected = sorted(found, key=population.last_failure) if only_failed(wanted, within) else found
        assert population.clocked.pages(wanted, limit, within) == expected
        assert population.clocked.count(wanted, within) == len(expected)

    found_as_expected()


def test_what_failed_last_stands_first(clocked: Clocked) -> None:
    """Whenever it was enqueued, page by page, by state and by cause; also of those that failed in the same moment."""
    for number in range(5):
        clocked.enqueue(f"m{number}", "cpu", "merge")
    error = ErrorInfo("ValueError", "", "")
    failing = [(event_of(f"m{number}", State.FAILED, error=error), "dead") for number in (3, 1, 4, 0)]
    clocked.note(*failing[:2])
    clocked.note(*failing[2:])
    clocked.note((event_of("m2", State.STARTED), "running"))
    for wanted in ({"states": ("dead",)}, {"states": ("failed", "lost")}, {"cause": "ValueError"}):
        assert clocked.pages(MessageFilter(**wanted), 1) == ["m0", "m4", "m1", "m3"]
    assert clocked.pages(MessageFilter(), 2, within=("dead",)) == ["m0", "m4", "m1", "m3"]
    assert clocked.pages(MessageFilter(), 2) == ["m4", "m3", "m2", "m1", "m0"]


def test_what_came_right_since_is_no_failure(clocked: Clocked) -> None:
    """Nor what a person has cancelled; a retry that runs is one, until it has ended."""
    for number in range(4):
        clocked.enqueue(f"m{number}", "cpu", "merge")
        clocked.at(clocked.now + MINUTE)
        clocked.note((event_of(f"m{number}", State.FAILED), "delayed"))
    clocked.note((event_of("m3", State.COMPLETED, attempt=2), "completed"))
    clocked.note((event_of("m0", State.CANCELLED, attempt=2), "cancelled"))
    clocked.note((event_of("m1", State.STARTED, attempt=2), "running"))
    found = clocked.ask(newest_failures())
    assert [one.id for one in found.messages] == ["m2", "m1"]
    assert all(one.failed is not None for one in found.messages)
    clocked.note((event_of("m1", State.FAILED, attempt=2), "dead"))
    assert [one.id for one in clocked.ask(newest_failures()).messages] == ["m1", "m2"]


def test_since_and_until_are_when_a_message_got_its_state_or_when_it_is_due(clocked: Clocked) -> None:
    """Both ends included, to the millisecond; also of a message that changed long after its neighbours."""
    for number in range(3):
        clocked.at(START + number * 1_000)
        clocked.enqueue(f"m{number}", "cpu", "merge")
    clocked.enqueue("later", "cpu", "merge", later=HOUR)
    clocked.at(START + MINUTE)
    clocked.note((event_of("m0", State.COMPLETED), "completed"))

    def found(since: int | None = None, until: int | None = None) -> list[str]:
        moments = [None if one is None else moment(START + one) for one in (since, until)]
        return clocked.pages(MessageFilter(since=moments[0], until=moments[1]), 10)

    assert found() == ["later", "m2", "m1", "m0"]
    assert found(since=MINUTE) == ["later", "m0"]
    assert found(since=MINUTE + 1) == found(since=HOUR) == ["later"]
    assert found(until=MINUTE) == ["m2", "m1", "m0"]
    assert found(until=MINUTE - 1) == ["m2", "m1"]
    assert found(since=1_000, until=2_000) == ["m2", "m1"]
    assert found(since=1_001, until=1_999) == found(until=999) == found(since=MINUTE + 1, until=MINUTE) == []


def test_a_message_that_goes_back_to_its_queue_is_found_by_when_it_did(clocked: Clocked) -> None:
    """Although it is in the same state as before, and others of its time are long past."""
    clocked.enqueue("m", "cpu", "merge")
    clocked.at(START + HOUR)
    clocked.note((event_of("m", State.FAILED), "delayed"), (event_of("m", State.FAILED, 2), "queued"))
    assert clocked.pages(MessageFilter(since=moment(START + MINUTE)), 10) == ["m"]


MANY = 5_000


def test_messages_about_something_frequent_are_all_found(clocked: Clocked) -> None:
    """More than are looked at in one call, over more than one segment, alone and with whatever else."""
    for first in range(0, MANY, 500):
        clocked.at(START + first)
        clocked.note(*(_about(number) for number in range(first, first + 500)))
    everything = [f"m{number}" for number in range(MANY - 1, -1, -1)]

    def expected(is_wanted: Callable[[int], bool]) -> list[str]:
        return [one for one in everything if is_wanted(int(one[1:]))]

    cases: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
        ({"subject": {"big": "1"}}, lambda _: True),
        ({"subject": {"big": "1", "part": "3"}}, lambda number: number % 7 == 3),
        ({"subject": {"big": "1", "half": "0"}}, lambda number: number % 2 == 0),
        ({"subject": {"big": "1"}, "states": ("dead",)}, lambda number: number % 1_000 == 0),
        ({"subject": {"half": "1"}, "states": ("dead",)}, lambda _: False),
        ({"subject": {"half": "0"}, "error": "Rare"}, lambda number: number % 1_000 == 0),
        ({"subject": {"big": "1"}, "until": moment(START + 400)}, lambda number: number < 500),
        ({"subject": {"big": "1", "half": "1"}, "since": moment(START + 4_300)}, lambda n: n >= 4_500 and n % 2 == 1),
    ]
    for values, is_wanted in cases:
        wanted = MessageFilter(**values)
        assert clocked.pages(wanted, 700) == expected(is_wanted), values
        assert clocked.count(wanted) == len(expected(is_wanted)), values
    assert [one.id for one in all_messages(clocked.client, MessageFilter(subject={"big": "1"}))] == everything
    assert count_messages(clocked.client, MessageFilter(subject={"big": "1"})) == MANY


def _about(number: int) -> tuple[StatusEvent, str]:
    values: dict[str, Any] = {"subject": {"big": 1, "part": number % 7, "half": number % 2}}
    if number % 1_000 == 0:
        return event_of(f"m{number}", State.FAILED, error=ErrorInfo("x.Rare", "", ""), **values), "dead"
    return event_of(f"m{number}", State.COMPLETED, **values), "completed"


def test_messages_that_are_forgotten_are_not_counted_whatever_they_went_through(clocked: Clocked) -> None:
    """Also those of which older events had to go."""
    long = "x" * 15_000
    for number in range(12):
        error = ErrorInfo(f"E{number % 3 if number < 3 else 9}", "", long)
        clocked.note((event_of("long", State.FAILED, number + 1, error=error), "delayed"))
    clocked.note((event_of("long", State.FAILED, 13, error=ErrorInfo("E9", "", long)), "dead"))
    message = ask(clocked.client, one_message("long"))
    assert message is not None
    assert message.events_left_out > 3
    assert clocked.count(MessageFilter(error="E1")) == 1
    few = [30 * 86_400, *([0, 0] * 4), -1, -1]
    arguments: list[Any] = ["test:last", *few, *writer._arguments_of(event_of("new", State.COMPLETED), "completed")]
    clocked._note.run(clocked.client, arguments)
    for wanted in (MessageFilter(error="E1"), MessageFilter(error="E9"), MessageFilter(states=("failed",))):
        assert clocked.count(wanted) == 0
    indexes_agree(clocked.client)


def test_dead_letters_are_counted_by_what_they_died_of_in_the_end(clocked: Clocked) -> None:
    """Not by what they went through before; one that runs again is none of them."""
    for number, types in enumerate((["A", "x.B"], ["x.B", "A"], ["A"], ["A"])):
        *before, last = types
        for attempt, one in enumerate(before, 1):
            clocked.note((event_of(f"m{number}", State.FAILED, attempt, error=ErrorInfo(one, "", "")), "delayed"))
        clocked.note((event_of(f"m{number}", State.FAILED, 9, error=ErrorInfo(last, "", "")), "dead"))
    clocked.note((event_of("other", State.FAILED), "dead"))
    counts = clocked.ask(dead_by_cause())
    assert counts == {"A": 3, "unknown": 1, "x.B": 1}
    assert list(counts) == ["A", "unknown", "x.B"]
    clocked.note((event_of("m3", State.COMPLETED, 10), "completed"))
    assert clocked.ask(dead_by_cause()) == {"A": 2, "unknown": 1, "x.B": 1}
    indexes_agree(clocked.client)


def test_delayed_messages_come_in_the_order_in_which_they_are_due(clocked: Clocked) -> None:
    """Ties included, page by page, whatever becomes of those that were on the page before."""
    chance = random.Random(5)
    for number in range(60):
        clocked.enqueue(f"m{number}", "cpu", "merge", later=HOUR + chance.randrange(5) * 1_000)
    for limit in (1, 3, 7, 100):
        found: list[StoredMessage] = []
        while page := clocked.ask(delayed_messages(limit=limit, after=found[-1] if found else None)):
            found += page
        assert len({message.id for message in found}) == len(found) == 60
        assert [message.since for message in found] == sorted(message.since for message in found)
    first = clocked.ask(delayed_messages(limit=10))
    rest = [message.id for message in found[10:]]
    clocked.client.zadd("{worker}:due", {first[-1].id: START + DAY})
    assert [one.id for one in clocked.ask(delayed_messages(limit=100, after=first[-1]))] == [*rest, first[-1].id]
    clocked.client.zrem("{worker}:due", first[-1].id)
    assert [one.id for one in clocked.ask(delayed_messages(limit=100, after=first[-1]))] == rest


# ---------------------------------------------------------------------- rates and windows


def test_percentiles_are_within_a_twentieth_of_the_true_ones(clocked: Clocked) -> None:
    """Of durations from fractions of a millisecond to hours; shares and rates are exact."""
    chance = random.Random(1)
    times = [chance.lognormvariate(4, 2) for _ in range(2_000)]
    waits = [chance.expovariate(0.01) for _ in times]
    told = []
    for number, (ms, wait) in enumerate(zip(times, waits, strict=True)):
        state = State.FAILED if number % 4 == 0 else State.COMPLETED
        becomes = "dead" if state is State.FAILED else "completed"
        told.append((event_of(f"m{number}", state, duration_ms=ms, queued_ms=wait), becomes))
    for first in range(0, len(told), 500):
        clocked.note(*told[first : first + 500])
    clocked.at(START + 30_000)
    (rates,) = clocked.ask(actor_rates(timedelta(minutes=10)))
    assert rates.ended == {"completed": 1_500, "skipped": 0, "failed": 500, "snoozed": 0, "cancelled": 0, "lost": 0}
    assert rates.error_share == 0.25
    begins = (START + 30_000 - 10 * MINUTE) // MINUTE * MINUTE
    assert rates.per_second == pytest.approx(2_000 / ((START + 30_000 - begins) / 1_000))
    for values, found in ((times, rates.duration), (waits, rates.wait)):
        assert found.count == 2_000
        for share, ms in ((0.50, found.p50_ms), (0.95, found.p95_ms), (0.99, found.p99_ms)):
            true = sorted(values)[math.ceil(share * len(values)) - 1]
            assert ms == pytest.approx(true, rel=0.051)
    (of_all,) = [window for window in clocked.ask(windows(timedelta(minutes=10))) if any(window.ended.values())]
    assert (of_all.ended, of_all.duration, of_all.wait) == (rates.ended, rates.duration, rates.wait)


def test_rates_and_windows_are_those_of_the_time_that_was_asked_for(clocked: Clocked) -> None:
    """Of minutes up to two hours, of hours beyond that: each attempt that ended then is in one window, once."""
    chance = random.Random(2)
    ends: list[int] = []
    at = START + 13 * HOUR + 7 * MINUTE
    for number in range(400):
        at += chance.choice([1, 1_000, MINUTE, 10 * MINUTE, HOUR])
        clocked.at(at)
        clocked.note((event_of(f"m{number}", State.COMPLETED, duration_ms=1.0), "completed"))
        ends.append(at)
    last = at

    @hypothesis_settings(max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(span=st.integers(1, 20 * HOUR) | st.integers(1, 40 * DAY // 10), later=st.integers(0, 30 * MINUTE))
    def are_right(span: int, later: int) -> None:
        now = last + later
        clocked.at(now)
        unit = MINUTE if span <= 2 * HOUR else HOUR
        since = (now - span) // unit * unit
        expected = sum(since <= one <= now for one in ends)
        found = clocked.ask(actor_rates(timedelta(milliseconds=span)))
        assert sum(one.ended["completed"] for one in found) == expected
        each = clocked.ask(windows(timedelta(milliseconds=span)))
        assert [one.start for one in each] == [moment(one) for one in range(since, now + 1, unit)]
        per_window = Counter(moment(one // unit * unit) for one in ends)
        assert [one.ended.get("completed", 0) for one in each] == [per_window[one.start] for one in each]
        assert {one.seconds for one in each} == {unit / 1000}

    are_right()


# ---------------------------------------------------------------------- with real workers


@pytest.fixture
def broker(settings: Settings, valkey: EmbeddedServer) -> Iterator[StreamBroker]:
    """A broker with short leases, whose failed messages are retried at once."""
    with stream_broker(settings, **AT_ONCE, max_retries=1, lease=timedelta(seconds=1)) as made:
        yield made


@pytest.fixture
def worker(broker: StreamBroker) -> Iterator[dramatiq.Worker]:
    """A worker with three threads, not started yet."""
    with idle_worker(broker, threads=3) as made:
        yield made


def test_who_runs_what_since_when_is_told_of_each_worker(
    client: RedisClient, broker: StreamBroker, worker: dramatiq.Worker
) -> None:
    """As of its last heartbeat; one whose lease has run out is dead until somebody notices."""
    gate = threading.Event()

    @actor(queue_name="cpu")
    def gated(number: int) -> None:
        gate.wait(SOON)

    began = datetime.now(UTC) - timedelta(seconds=1)
    sent = {gated.send(number).message_id for number in range(2)}
    worker.start()
    wait_until(lambda: ask(client, workers()) and len(ask(client, workers())[0].attempts) == 2, SOON)
    (info,) = ask(client, workers())
    assert info.alive
    assert (info.queues, info.threads, info.ahead, info.errors) == (("cpu",), 3, 0, ())
    assert {attempt.message_id for attempt in info.attempts} == sent
    assert {(attempt.actor, attempt.number) for attempt in info.attempts} == {("gated", 1)}
    assert all(began < attempt.started <= datetime.now(UTC) for attempt in info.attempts)
    assert info.started is not None
    wait_until(lambda: ask(client, workers())[0].heartbeat > info.heartbeat, SOON)
    page = ask(client, running_messages())
    assert ({one.id for one in page.messages}, page.cursor) == (sent, None)
    for message in page.messages:
        (attempt,) = attempts_of(message)
        assert (attempt.state, attempt.ended) == ("running", None)
        assert attempt.worker is not None
        assert attempt.worker.pid == info.pid
    client.zadd("{worker}:leases", {"elsewhere:7:x": 1})
    dead = next(one for one in ask(client, workers()) if one.name == "elsewhere:7:x")
    assert (dead.alive, dead.host, dead.pid, dead.queues) == (False, "elsewhere", 7, ())
    gate.set()
    wait_until(lambda: not ask(client, running_messages()).messages, SOON)


def test_queues_tell_what_waits_there_and_for_how_long(client: RedisClient, broker: StreamBroker) -> None:
    """The oldest of those that nobody has been given; delayed ones do not wait."""

    @dramatiq.actor(queue_name="one")
    def idle() -> None: ...

    assert ask(client, queues()) == ()
    idle.send_with_options(delay=HOUR)
    (found,) = ask(client, queues())
    assert (found.name, found.queued, found.delayed, found.running, found.oldest_seconds, found.pause) == (
        "one",
        0,
        1,
        0,
        None,
        None,
    )
    first = idle.send().message_id
    idle.send()
    wait_until(lambda: (ask(client, queues())[0].oldest_seconds or 0) > 0.05, SOON)
    before = ask(client, queues())[0].oldest_seconds
    assert before is not None
    assert before < 10
    cancel(client, [first])
    run_now(client, MessageFilter(states=("delayed",)))
    pause(client, "one", by="ann")
    (found,) = ask(client, queues())
    assert (found.queued, found.delayed) == (2, 0)
    assert found.oldest_seconds is not None
    assert found.pause is not None
    assert found.pause.by == "ann"
    assert abs(found.pause.since - datetime.now(UTC)) < timedelta(seconds=10)


def test_the_counters_of_windows_add_up_to_the_attempts_that_ended(
    client: RedisClient, broker: StreamBroker, worker: dramatiq.Worker
) -> None:
    """Of every actor and every kind of end, by minutes, by hours and by actors."""
    began = threading.Event()

    @actor
    async def mixed(number: int) -> None:
        if number % 4 == 1:
            raise NoContentFound("nothing")
        if number % 4 == 2:
            raise ValueError("twice")
        if number % 4 == 3:
            raise Fatal("once")
        attempt = current_attempt()
        if attempt is not None and attempt.number == 1:
            raise RetryLater(0, "busy")

    @actor
    async def idle() -> None:
        began.set()
        await asyncio.Event().wait()

    broker.enqueue_many([mixed.message(number) for number in range(200)])
    waits = idle.send().message_id
    worker.start()
    assert began.wait(SOON)
    wait_until(lambda: ask(client, state_counts()).get("running") == 1, SOON)
    cancel(client, [waits])
    broker.join("default", timeout=30_000)
    ended = Counter(
        (message.actor, event.state.value)
        for message in indexes_agree(client).values()
        for event in message.events
        if event.state.is_final
    )
    assert ended == {
        ("mixed", "completed"): 50,
        ("mixed", "skipped"): 50,
        ("mixed", "failed"): 150,
        ("mixed", "snoozed"): 50,
        ("idle", "cancelled"): 1,
    }
    for over in (timedelta(hours=1), timedelta(days=2), timedelta(days=40)):
        rates = ask(client, actor_rates(over))
        assert {(one.actor, kind): number for one in rates for kind, number in one.ended.items() if number} == ended
        in_windows: Counter[str] = Counter()
        for window in ask(client, windows(over)):
            in_windows.update(window.ended)
        assert in_windows == {"completed": 50, "skipped": 50, "failed": 150, "snoozed": 50, "cancelled": 1, "lost": 0}
        assert sum(one.duration.count for one in rates if one.duration is not None) == 301
        assert {one.actor: one.error_share for one in rates} == {"mixed": 150 / 250, "idle": 0}


# ---------------------------------------------------------------------- asking


def every_question() -> list[Question[Any]]:
    return [
        one_message("m1"),
        page_of_messages(MessageFilter(states=("dead", "completed")), limit=5),
        count_of_messages(MessageFilter(actor="merge")),
        delayed_messages(limit=3),
        running_messages(),
        state_counts(),
        dead_by_cause(),
        actor_rates(timedelta(hours=1)),
        windows(timedelta(hours=1)),
        queues(),
        workers(),
        audit_log(10),
    ]


async def test_asking_from_async_code_gives_the_same_answers(client: RedisClient, settings: Settings) -> None:
    """Every question, and all messages page by page."""
    clocked = Clocked(client)
    chance = random.Random(4)
    for number in range(300):
        _tell(clocked, (f"m{number}", chance.choice(QUEUES), chance.choice(ACTORS)), chance)
    clocked.enqueue("later", "cpu", "merge", later=HOUR)
    pause(client, "cpu", by="ann")
    path = client.connection_pool.connection_kwargs["path"]
    async with AsyncRedisClient(NAMESPACE, unix_socket_path=path) as other:
        for question in every_question():
            assert await aask(other, question) == ask(client, question)
        wanted = MessageFilter(actor="merge")
        found = [one async for one in aall_messages(other, wanted, at_once=7)]
    assert found == list(all_messages(client, wanted))
    assert len(found) > 100


async def test_a_server_that_is_gone_is_said_to_be() -> None:
    """By every question, asked either way."""
    away = RedisClient(NAMESPACE, unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0))
    for question in every_question():
        with pytest.raises(ServerUnreachable, match="the history cannot be asked"):
            ask(away, question)
        async with AsyncRedisClient(NAMESPACE, unix_socket_path="/nowhere", retry=AsyncRetry(NoBackoff(), 0)) as other:
            with pytest.raises(ServerUnreachable, match="the history cannot be asked"):
                await aask(other, question)
    with pytest.raises(ServerUnreachable):
        next(all_messages(away, MessageFilter()))
    away.close()


@pytest.mark.own_server
def test_asking_works_while_the_server_has_no_memory_left(client: RedisClient) -> None:
    """Whatever is worked out on the way."""
    clocked = Clocked(client)
    clocked.note((event_of("m", State.COMPLETED), "completed"))
    client.config_set("maxmemory", 1)
    for question in every_question():
        ask(client, question)
    assert [one.id for one in all_messages(client, MessageFilter(states=("completed", "dead")))] == ["m"]
    client.config_set("maxmemory", 0)


# ---------------------------------------------------------------------- the tail


def seen(tail: Iterator[Any], number: int) -> list[tuple[str, str]]:
    """So many events, each with the position after it."""
    found = ((one.position, one.event.id) for one in tail if one.event is not None)
    return list(itertools.islice(found, number))


def test_a_tail_that_is_cut_anywhere_goes_on_without_gap_or_repeat(clocked: Clocked) -> None:
    """Between entries and in the middle of one, with and without a filter, read either way."""
    chance = random.Random(8)
    ids = []
    for entry in range(25):
        some = [
            event_of(f"{entry}-{n}", State.STARTED, actor=chance.choice(ACTORS))
            for n in range(chance.choice([1, 3, 70]))
        ]
        clocked.note(*((one, "") for one in some))
        ids += [(one.id, one.actor) for one in some]

    @hypothesis_settings(max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(
        cuts=st.lists(st.integers(1, len(ids)), max_size=6, unique=True).map(sorted),
        of=st.sampled_from([None, *ACTORS]),
        is_async=st.booleans(),
    )
    def goes_on(cuts: list[int], of: str | None, is_async: bool) -> None:
        wanted = EventFilter(actor=of)
        expected = [id_ for id_, actor in ids if of in (None, actor)]
        found: list[str] = []
        after = BEGINNING
        for cut in [*(one for one in cuts if one < len(expected)), len(expected)]:
            number = cut - len(found)
            more = (
                asyncio.run(afollow(clocked, wanted, after, number))
                if is_async
                else seen(follow_events(clocked.client, wanted, after=after), number)
            )
            found += [id_ for _, id_ in more]
            after = more[-1][0]
        assert found == expected

    goes_on()


async def afollow(clocked: Clocked, wanted: EventFilter, after: str, number: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    path = clocked.client.connection_pool.connection_kwargs["path"]
    async with AsyncRedisClient(NAMESPACE, unix_socket_path=path) as other:
        async for one in afollow_events(other, wanted, after=after):
            if one.event is not None:
                found.append((one.position, one.event.id))
            if len(found) == number:
                break
    return found


def entries(clocked: Clocked, first: int, last: int, actor: str = "merge") -> None:
    for number in range(first, last):
        clocked.note((event_of(f"m{number}", State.STARTED, actor=actor), ""))


def test_who_falls_behind_the_tail_is_told_so_once(clocked: Clocked) -> None:
    """With the first event that it gets, though the first that are left do not match; then no more."""
    entries(clocked, 0, 3)
    tail = follow_events(clocked.client, EventFilter(actor="merge"), after=BEGINNING)
    assert [next(tail).missed for _ in range(3)] == [False] * 3
    entries(clocked, 3, 10)
    entries(clocked, 10, 13, actor="summarize")
    clocked.client.xtrim("{worker}:events", 3, approximate=False)
    entries(clocked, 13, 15)
    found = ((one.event.message_id, one.missed) for one in tail if one.event is not None)
    assert list(itertools.islice(found, 2)) == [("m13", True), ("m14", False)]


def test_who_has_read_everything_misses_nothing_when_what_it_read_goes(clocked: Clocked) -> None:
    """The tail may forget what a follower has, also the place where it is."""
    entries(clocked, 0, 3)
    tail = follow_events(clocked.client, EventFilter(), after=BEGINNING)
    seen(tail, 3)
    assert next(tail).event is None
    entries(clocked, 3, 4)
    clocked.client.xtrim("{worker}:events", 1, approximate=False)
    one = next(tail)
    assert one.event is not None
    assert (one.event.message_id, one.missed) == ("m3", False)


def test_who_comes_back_to_a_place_that_is_gone_is_told_so(clocked: Clocked) -> None:
    """Also when that is in the middle of an entry, and when nothing has come since."""
    clocked.note(*((event_of(f"m{number}", State.STARTED), "") for number in range(10)))
    (*_, (after, _)) = seen(follow_events(clocked.client, EventFilter(), after=BEGINNING), 5)
    assert "/" in after
    one = next(follow_events(clocked.client, EventFilter(), after=after))
    assert one.event is not None
    assert (one.event.message_id, one.missed) == ("m5", False)
    entries(clocked, 20, 21)
    clocked.client.xtrim("{worker}:events", 1, approximate=False)
    one = next(follow_events(clocked.client, EventFilter(), after=after))
    assert one.event is not None
    assert (one.event.message_id, one.missed) == ("m20", True)


def test_a_tail_in_which_nothing_matches_comes_to_speech_all_the_same(clocked: Clocked) -> None:
    """However much else goes on; and who begins again after that place does not read it all again."""
    entries(clocked, 0, 5, actor="summarize")
    stop = threading.Event()

    def go_on() -> None:
        numbers = itertools.count(100)
        while not stop.wait(0.05):
            number = next(numbers)
            clocked.note((event_of(f"m{number}", State.STARTED, actor="summarize"), ""))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        one = next(follow_events(clocked.client, EventFilter(actor="merge"), after=BEGINNING))
    finally:
        stop.set()
        thread.join()
    assert one.event is None
    assert one.position != BEGINNING
    first = next(follow_events(clocked.client, EventFilter(), after=one.position))
    assert first.event is None or first.event.message_id not in {f"m{number}" for number in range(5)}


@pytest.mark.parametrize("after", ["", "x", "1-x", "1-1/x", "-1"])
def test_what_is_no_position_is_refused(clocked: Clocked, after: str) -> None:
    """By name."""
    with pytest.raises(ValueError, match="is not a position in the tail"):
        next(follow_events(clocked.client, EventFilter(), after=after))
