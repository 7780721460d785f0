"""The history on a real server."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.waiting import wait_until
from worker.ground.durations import parse_duration
from worker.history import writer as writer_module
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import actor_rates
from worker.history.query import all_messages, ask, one_message, read_events, state_counts
from worker.history.tail import follow_events, position
from worker.history.writer import EventWriter
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

MINUTE_MS = 60_000


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(data_dir=tmp_path / "data", redis_url=None)
    yield settings
    EmbeddedServer(settings).stop()


@pytest.fixture
def store(own_server: Settings) -> RedisClient:
    return connect(own_server)


@pytest.fixture
def writer(own_server: Settings) -> Iterator[EventWriter]:
    made = EventWriter(lambda: connect(own_server), own_server)
    yield made
    made.close(5)


def event(name: str = "a", state: State = State.STARTED, **values: object) -> StatusEvent:
    return StatusEvent(event=f"{name}.{state}", state=state, **values)  # type: ignore[arg-type]


def of_message(message_id: str, state: State = State.STARTED, attempt: int = 1, **values: object) -> StatusEvent:
    """An event of an attempt, as a worker with Dramatiq's stock broker records it."""
    own = f"{message_id}:{attempt}{'.end' if state.is_final else ''}"
    about = {"actor": "merge", "queue": "cpu", "parent": f"{message_id}:{attempt}" if state.is_final else None} | values
    name = str(about["actor"])
    return event(name, state, id=own, message_id=message_id, attempt=attempt, **about)


def ids(events: list[StatusEvent]) -> list[str]:
    return [one.id for one in events]


def as_read(one: StatusEvent) -> StatusEvent:
    """The event with its time in milliseconds."""
    return replace(one, time=datetime.fromtimestamp(round(one.time.timestamp() * 1000) / 1000, UTC))


def test_what_is_recorded_is_read_back_in_order(writer: EventWriter, store: RedisClient) -> None:
    """Every event, once."""
    recorded = [event(f"n{number}") for number in range(1_500)]
    for one in recorded:
        writer.record(one)
    assert writer.flush(10)
    assert read_events(store, EventFilter(), 10_000) == [as_read(one) for one in recorded]
    assert ids(read_events(store, EventFilter(), 3)) == ids(recorded[-3:])


def test_the_newest_events_are_those_of_an_old_message_too(writer: EventWriter, store: RedisClient) -> None:
    """One that was enqueued long before the others, and has an event since."""
    writer.record(of_message("old"))
    for number in range(20):
        writer.record(of_message(f"new{number}"))
    last = of_message("old", State.COMPLETED)
    writer.record_end(last, "completed")
    assert writer.flush(10)
    assert ids(read_events(store, EventFilter(), 2)) == ["new19:1", last.id]
    assert ids(read_events(store, EventFilter(actor="merge", state=State.COMPLETED), 1)) == [last.id]


def test_events_of_many_threads_are_all_kept(writer: EventWriter, store: RedisClient) -> None:
    """And those of one thread in its order."""

    def record(thread: int) -> None:
        for number in range(100):
            writer.record(event(f"t{thread}", text=str(number)))

    threads = [threading.Thread(target=record, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(10)
    found = read_events(store, EventFilter(), 10_000)
    assert len(found) == 800
    for number in range(8):
        texts = [one.text for one in found if one.event == f"t{number}.started"]
        assert texts == [str(n) for n in range(100)]


def test_filters_narrow_in_any_combination(writer: EventWriter, store: RedisClient) -> None:
    """By message, subject, actor, state and time."""
    old = datetime.now(UTC) - timedelta(hours=2)
    one, two = {"conversation_id": 42}, {"conversation_id": "42", "part": "x\ty"}
    events = {
        "m1": of_message("1", subject=one),
        "m1 failed": of_message("1", State.FAILED, subject=one, error=ErrorInfo("ValueError", "", "")),
        "m2": of_message("2", subject=two),
        "m3": of_message("3", actor="summarize", subject={"conversation_id": "43"}),
        "m4": of_message("4", actor="summarize", time=old),
    }
    for each in events.values():
        if each.state.is_final:
            writer.record_end(each, "dead")
        else:
            writer.record(each)
    assert writer.flush(10)

    def names(wanted: EventFilter) -> list[str]:
        found = ids(read_events(store, wanted, 100))
        return [name for name, each in events.items() if each.id in found]

    assert names(EventFilter(message_id="1")) == ["m1", "m1 failed"]
    assert names(EventFilter(subject={"conversation_id": "42"})) == ["m1", "m1 failed", "m2"]
    assert names(EventFilter(subject={"part": "x\ty", "conversation_id": "42"})) == ["m2"]
    assert names(EventFilter(actor="merge", state=State.FAILED)) == ["m1 failed"]
    assert names(EventFilter(state=State.STARTED)) == ["m1", "m2", "m3", "m4"]
    assert names(EventFilter(since=datetime.now(UTC) - timedelta(hours=1))) == ["m1", "m1 failed", "m2", "m3"]
    assert names(EventFilter(message_id="none")) == []


def test_a_message_is_kept_whole_and_found_by_what_is_known_of_it(writer: EventWriter, store: RedisClient) -> None:
    """Through its attempts: its state, its events, and the marks of actor, queue, state and error."""
    error = ErrorInfo("ValueError", "no", "")
    writer.record(of_message("1"))
    writer.record_end(of_message("1", State.FAILED, error=error), "delayed")
    assert writer.flush(10)
    assert ask(store, state_counts()) == {"delayed": 1}
    writer.record(of_message("1", attempt=2))
    writer.record_end(of_message("1", State.COMPLETED, attempt=2), "completed")
    writer.record_end(of_message("2", State.SKIPPED, queue="network"), "skipped")
    assert writer.flush(10)
    assert ask(store, state_counts()) == {"completed": 1, "skipped": 1}
    found = ask(store, one_message("1"))
    assert found is not None
    assert (found.state, found.attempts, found.actor, found.queue) == ("completed", 2, "merge", "cpu")
    assert [one.state for one in found.events] == ["started", "failed", "started", "completed"]
    assert ask(store, one_message("3")) is None

    def found_by(**wanted: Any) -> list[str]:
        return [one.id for one in all_messages(store, MessageFilter(**wanted))]

    assert found_by() == found_by(actor="merge") == ["2", "1"]
    assert found_by(actor="merge", queue="cpu") == found_by(error="ValueError") == ["1"]
    assert found_by(states=("completed",)) == found_by(states=("failed",)) == ["1"]
    assert found_by(states=("delayed",)) == found_by(error="ValueError", queue="network") == []


def test_a_run_outside_a_worker_is_kept_under_the_id_of_the_run(writer: EventWriter, store: RedisClient) -> None:
    """With its spans; it has neither actor nor queue, and is no message."""
    for own, state in (("0", State.STARTED), ("0/1", State.STARTED), ("0/1.end", State.FAILED)):
        writer.record(event(state=state, id=f"run:{own}"))
    assert writer.flush(10)
    assert ask(store, state_counts()) == {"running": 1}
    writer.record_end(event(state=State.COMPLETED, id="run:0.end"), "completed")
    assert writer.flush(10)
    [found] = all_messages(store, MessageFilter(states=("completed",)))
    assert (found.id, found.actor, found.queue) == ("run", "", "")
    assert ids(list(found.events)) == ["run:0", "run:0/1", "run:0/1.end", "run:0.end"]
    assert {one.message_id for one in found.events} == {None}


def test_a_broken_line_does_not_hide_the_others(writer: EventWriter, store: RedisClient) -> None:
    """Nor does a broken entry of the tail, or a broken record: it is passed over."""
    start = position(store)
    store.xadd("{worker}:events", {b"e": b"not json"})
    store.xadd("{worker}:events", {b"e": b"m\ta\tq\n{}\n\xff"})
    store.xadd("{worker}:events", {b"other": b"field"})
    good, broken = event(id="good:0"), event(id="broken:0")
    writer.record(good)
    writer.record(broken)
    assert writer.flush(10)
    store.append("{worker}:m:good", b"not json\n{}\n\xff\n")
    store.set("{worker}:m:broken", b"broken")
    store.xtrim("{worker}:events", 4, approximate=False)
    assert ids([one for one in read_events(store, EventFilter(), 10) if one.id == good.id]) == [good.id]
    assert ids(list(next(all_messages(store, MessageFilter())).events)) == [good.id]
    assert ask(store, one_message("broken")) is None
    tail = follow_events(store, EventFilter(), after=start)
    seen = next(one.event for one in tail if one.event is not None)
    assert seen.id == good.id


def test_a_tail_has_neither_gaps_nor_repeats(writer: EventWriter, store: RedisClient) -> None:
    """Across the point where it began, and across a reconnect."""
    before = [event("before") for _ in range(3)]
    for one in before:
        writer.record(one)
    assert writer.flush(10)
    start = position(store)
    after = [event("after") for _ in range(700)]
    for one in after:
        writer.record(one)
    tail = follow_events(store, EventFilter(), after=start)
    seen = []
    for new in tail:
        if new.event is not None:
            seen.append(new.event.id)
        if len(seen) == len(after):
            break
    assert seen == ids(after)


def test_a_tail_says_now_and_then_that_nothing_came(store: RedisClient) -> None:
    """So that whoever follows can stop."""
    assert next(follow_events(store, EventFilter())).event is None


def test_messages_that_ended_before_the_retention_go_with_all_that_points_to_them(
    own_server: Settings, store: RedisClient
) -> None:
    """The history does not grow for ever; one that is still running is kept, however old."""
    settings = own_server.model_copy(update={"history_retention": timedelta(seconds=1)})
    short = EventWriter(lambda: connect(own_server), settings)
    error = ErrorInfo("ValueError", "no", "")
    short.record(of_message("runs", subject={"number": 1}))
    for number in range(50):
        short.record(of_message(str(number), subject={"number": number}))
        short.record_end(of_message(str(number), State.COMPLETED, error=error), "completed")
    assert short.flush(10)
    kept_events = EventFilter(subject={"number": "7"})
    assert len(read_events(store, kept_events, 10)) == 1

    ticks = itertools.count()

    def old_ones_are_gone() -> bool:
        # What is too old goes while others end, beside which it is kept.
        tick = f"tick{next(ticks)}"
        short.record_end(event("tick", State.COMPLETED, id=f"{tick}:0.end"), "completed")
        assert short.flush(10)
        return not any(ask(store, one_message(str(number))) for number in range(50))

    wait_until(old_ones_are_gone)
    found = [one.id for one in all_messages(store, MessageFilter())]
    assert found[-1] == "runs"
    assert f"tick{next(ticks) - 1}" in found
    assert not set(found) & {str(number) for number in range(50)}
    assert read_events(store, kept_events, 10) == []
    assert not store.exists("{worker}:s:number=7")
    assert store.exists("{worker}:s:number=1")
    short.close(5)


def test_no_more_messages_of_a_state_are_kept_than_the_limit_says(own_server: Settings, store: RedisClient) -> None:
    """The oldest go; each state has its own account."""
    few = EventWriter(lambda: connect(own_server), own_server.model_copy(update={"history_limit": 10}))
    few.record_end(of_message("skipped", State.SKIPPED), "skipped")
    for number in range(100):
        few.record_end(of_message(str(number), State.COMPLETED), "completed")
    assert few.flush(10)
    assert ask(store, state_counts()) == {"skipped": 1, "completed": 10}
    assert [one.id for one in all_messages(store, MessageFilter())] == [*map(str, range(99, 89, -1)), "skipped"]
    few.close(5)


def test_while_redis_is_away_events_wait_and_come_in_order(
    own_server: Settings, store: RedisClient, writer: EventWriter
) -> None:
    """Recording returns at once and raises nothing; flush says that they are not written yet."""
    first = event("first")
    writer.record(first)
    assert writer.flush(10)
    server = EmbeddedServer(own_server)
    server.stop()
    waiting = [event("waiting", State.COMPLETED) for _ in range(5)]
    started = time.monotonic()
    for one in waiting:
        writer.record(one)
    assert time.monotonic() - started < 5
    assert not writer.flush(0.05)
    server.ensure_running()
    assert writer.flush(20)
    assert ids(read_events(connect(own_server), EventFilter(), 100)) == ids([first, *waiting])
    assert writer.dropped == 0


def test_in_a_long_outage_started_and_progress_are_dropped_and_counted_and_final_events_never(
    own_server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, outcomes are kept."""
    monkeypatch.setattr(writer_module, "MAX_WAITING", 10)
    away = threading.Event()

    def open_client() -> RedisClient:
        if not away.is_set():
            raise redis.ConnectionError("away")
        return connect(own_server)

    writer = EventWriter(open_client, own_server)
    finals = []
    for number in range(50):
        writer.record(event("start"))
        finals.append(event(f"end{number}", State.FAILED))
        writer.record(finals[-1])
    assert writer.dropped > 0
    away.set()
    assert writer.flush(20)
    found = read_events(connect(own_server), EventFilter(), 1000)
    assert [one.id for one in found if one.state is State.FAILED] == ids(finals)
    assert len(found) + writer.dropped == 100
    writer.close(5)


def test_what_is_dropped_because_more_came_than_could_be_written_is_told_in_the_log(
    own_server: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with how many, although the server answers."""
    monkeypatch.setattr(writer_module, "MAX_WAITING", 10)
    slow = threading.Event()

    def open_client() -> RedisClient:
        assert slow.wait(20)
        return connect(own_server)

    def lines() -> list[str]:
        return [" ".join(one.getMessage().split()) for one in caplog.records if "were dropped" in one.getMessage()]

    writer = EventWriter(open_client, own_server)
    for _ in range(100):
        writer.record(event("start"))
    slow.set()
    assert writer.flush(20)
    told = f"dropped: more came than the server took count={writer.dropped}"
    wait_until(lambda: any(told in line for line in lines()))
    assert len(lines()) == 1
    assert len(read_events(connect(own_server), EventFilter(), 1000)) + writer.dropped == 100


@pytest.mark.parametrize("error", [redis.ConnectionError("cut"), redis.ResponseError("in the middle")])
def test_what_comes_while_an_answer_is_lost_is_stored_too(
    own_server: Settings, store: RedisClient, writer: EventWriter, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The server knows a group by its name: what comes later is in another."""
    first, later = event("first", State.COMPLETED), event("later", State.COMPLETED)
    send, failed = writer.send, threading.Event()

    def send_forgetfully(client: RedisClient, calls: Any) -> Any:
        if failed.is_set() or isinstance(error, redis.ConnectionError):
            answers = send(client, calls)
        if not failed.is_set():
            failed.set()
            writer.record(later)
            raise error
        return answers

    monkeypatch.setattr(writer, "send", send_forgetfully)
    writer.record(first)
    wait_until(failed.is_set)
    assert writer.flush(20)
    assert ids(read_events(store, EventFilter(), 10)) == ids([first, later])


def test_names_that_are_no_text_are_stored(writer: EventWriter, store: RedisClient) -> None:
    """Python makes halves of characters of file names that are no UTF-8; they hold up no event."""
    writer.record(of_message("1", subject={"file": "half\udce4"}))
    writer.record_end(of_message("1", State.FAILED, error=ErrorInfo("half\udce4", "", "")), "dead")
    writer.record(of_message("2"))
    assert writer.flush(10)
    assert len(read_events(store, EventFilter(), 10)) == 3


def test_a_context_outside_a_worker_writes_its_events_before_it_returns(own_server: Settings) -> None:
    """A script's events are there when it ends, in a process of its own."""
    script = (
        "from worker import ProcessingStatusContext\n"
        "with ProcessingStatusContext('script', 'by hand', step=1) as status:\n"
        "    status.set_exit_message('done')\n"
    )
    environment = {"WORKER_DATA_DIR": str(own_server.data_dir), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=environment, check=True, timeout=60)
    found = read_events(connect(own_server), EventFilter(), 10)
    assert [(one.event, one.text, dict(one.subject)) for one in found] == [
        ("script.started", "by hand", {"step": 1}),
        ("script.completed", "done", {"step": 1}),
    ]


def test_closing_writes_what_waits(own_server: Settings, store: RedisClient) -> None:
    """A process that ends loses nothing."""
    writer = EventWriter(lambda: connect(own_server), own_server)
    one = event()
    writer.record(one)
    assert writer.close(10)
    assert ids(read_events(store, EventFilter(), 10)) == [one.id]
    wait_until(lambda: writer._thread is not None and not writer._thread.is_alive())


@pytest.mark.parametrize("over", ["59m", "2h", "3h", "24h", "7d"])
def test_rates_are_the_same_from_large_windows_and_from_small_ones(store: RedisClient, over: str) -> None:
    """Each time is counted once, in the largest windows that fit in."""
    lengths = {"w": MINUTE_MS, "w10": 10 * MINUTE_MS, "h": 60 * MINUTE_MS, "d": 24 * 60 * MINUTE_MS}
    seconds, microseconds = store.time()
    now = seconds * 1000 + microseconds // 1000
    ended = [now - age * MINUTE_MS for age in (0, 1, 9, 30, 58, 60, 110, 130, 170, 600, 1300, 3000, 9000, 20_000)]
    for at in ended:
        for letter, length in lengths.items():
            store.hincrby(f"{{worker}}:{letter}:{at // length}", "a\tcompleted")
    span = parse_duration(over)
    unit = lengths["h" if span > timedelta(hours=2) else "w"]
    first = (now - span // timedelta(milliseconds=1)) // unit
    [rates] = ask(store, actor_rates(span))
    assert rates.ended["completed"] == sum(rates.ended.values()) == sum(at // unit >= first for at in ended)


def test_what_is_found_costs_nothing_in_the_append_only_file(writer: EventWriter, store: RedisClient) -> None:
    """Asking changes nothing, and needs no memory."""
    for number in range(3):
        end = of_message(f"m{number}", State.FAILED, error=ErrorInfo("project.Bad", "", ""))
        writer.record(of_message(f"m{number}"))
        writer.record_end(end, "dead")
    assert writer.flush(10)
    before = store.info("persistence")["aof_current_size"], set(store.keys())
    store.config_set("maxmemory", 1)
    wanted = MessageFilter(states=("dead", "failed"), actor="merge", queue="cpu", error="Bad")
    assert [one.id for one in all_messages(store, wanted)] == ["m2", "m1", "m0"]
    store.config_set("maxmemory", 0)
    assert (store.info("persistence")["aof_current_size"], set(store.keys())) == before
