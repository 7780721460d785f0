"""The history on a real server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from tests.waiting import wait_until
from worker.connection import connect
from worker.embedded import EmbeddedServer
from worker.history import writer as writer_module
from worker.history.events import State, StatusEvent
from worker.history.query import EventFilter, follow_events, position, read_events
from worker.history.writer import FIELD, STREAM, EventWriter
from worker.settings import Settings

WEEK = timedelta(days=7)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(data_dir=tmp_path / "data", redis_url=None)
    yield settings
    EmbeddedServer(settings).stop()


@pytest.fixture
def store(own_server: Settings) -> redis.Redis:
    return connect(own_server)


@pytest.fixture
def writer(own_server: Settings) -> Iterator[EventWriter]:
    made = EventWriter(lambda: connect(own_server), WEEK)
    yield made
    made.close(5)


def event(name: str = "a", state: State = State.STARTED, **values: object) -> StatusEvent:
    return StatusEvent(event=f"{name}.{state}", state=state, **values)  # type: ignore[arg-type]


def ids(events: list[StatusEvent]) -> list[str]:
    return [one.id for one in events]


def test_what_is_recorded_is_read_back_in_order(writer: EventWriter, store: redis.Redis) -> None:
    """Every event, once."""
    recorded = [event(f"n{number}") for number in range(1_500)]
    for one in recorded:
        writer.record(one)
    assert writer.flush(10)
    assert read_events(store, EventFilter(), 10_000) == [StatusEvent.from_json(one.to_json()) for one in recorded]
    assert ids(read_events(store, EventFilter(), 3)) == ids(recorded[-3:])


def test_events_of_many_threads_are_all_kept(writer: EventWriter, store: redis.Redis) -> None:
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


def test_filters_narrow_in_any_combination(writer: EventWriter, store: redis.Redis) -> None:
    """By message, subject, actor, state and time."""
    old = datetime.now(UTC) - timedelta(hours=2)
    events = {
        "m1": event(message_id="1", actor="merge", subject={"conversation_id": 42}),
        "m1 failed": event(message_id="1", actor="merge", state=State.FAILED, subject={"conversation_id": 42}),
        "m2": event(message_id="2", actor="merge", subject={"conversation_id": "42", "part": "x"}),
        "m3": event(message_id="3", actor="summarize", subject={"conversation_id": "43"}),
        "m4": event(message_id="4", actor="summarize", time=old),
    }
    for one in events.values():
        writer.record(one)
    assert writer.flush(10)

    def names(wanted: EventFilter) -> list[str]:
        found = ids(read_events(store, wanted, 100))
        return [name for name, one in events.items() if one.id in found]

    assert names(EventFilter(message_id="1")) == ["m1", "m1 failed"]
    assert names(EventFilter(subject={"conversation_id": "42"})) == ["m1", "m1 failed", "m2"]
    assert names(EventFilter(subject={"conversation_id": "42", "part": "x"})) == ["m2"]
    assert names(EventFilter(actor="merge", state=State.FAILED)) == ["m1 failed"]
    assert names(EventFilter(since=datetime.now(UTC) - timedelta(hours=1))) == ["m1", "m1 failed", "m2", "m3"]
    assert names(EventFilter(message_id="none")) == []


def test_a_broken_entry_does_not_hide_the_others(writer: EventWriter, store: redis.Redis) -> None:
    """It is passed over."""
    good = event()
    store.xadd(STREAM, {FIELD: b"not json"})
    store.xadd(STREAM, {b"other": b"field"})
    writer.record(good)
    assert writer.flush(10)
    assert ids(read_events(store, EventFilter(), 10)) == [good.id]


def test_a_tail_has_neither_gaps_nor_repeats(writer: EventWriter, store: redis.Redis) -> None:
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
        if new is not None:
            seen.append(new.id)
        if len(seen) == len(after):
            break
    assert seen == ids(after)


def test_a_tail_says_now_and_then_that_nothing_came(store: redis.Redis) -> None:
    """So that whoever follows can stop."""
    assert next(follow_events(store, EventFilter())) is None


def test_events_older_than_the_retention_go(own_server: Settings, store: redis.Redis) -> None:
    """The stream does not grow for ever."""
    now = int(time.time() * 1000)
    for number in range(300):
        store.xadd(STREAM, {FIELD: event().to_json()}, id=f"{now - 10_000 + number}-0")
    short = EventWriter(lambda: connect(own_server), timedelta(seconds=5))
    fresh = event()
    short.record(fresh)
    assert short.flush(10)
    # Trimming is approximate: whole nodes of the stream, about a hundred entries each.
    assert store.xlen(STREAM) < 200
    assert ids(read_events(store, EventFilter(), 1)) == [fresh.id]
    short.close(5)


def test_while_redis_is_away_events_wait_and_come_in_order(
    own_server: Settings, store: redis.Redis, writer: EventWriter
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
    assert time.monotonic() - started < 1
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

    def open_client() -> redis.Redis:
        if not away.is_set():
            raise redis.ConnectionError("away")
        return connect(own_server)

    writer = EventWriter(open_client, WEEK)
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


def test_closing_writes_what_waits(own_server: Settings, store: redis.Redis) -> None:
    """A process that ends loses nothing."""
    writer = EventWriter(lambda: connect(own_server), WEEK)
    one = event()
    writer.record(one)
    assert writer.close(10)
    assert ids(read_events(store, EventFilter(), 10)) == [one.id]
    wait_until(lambda: writer._thread is not None and not writer._thread.is_alive())
