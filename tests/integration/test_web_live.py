"""The live tail, as browsers follow it: over a real server, under load, cut off and resumed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import httpx
import pytest

from tests.support.waiting import TIMEOUT, wait_until
from tests.support.web import Sent, following, serving
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.filters import EventFilter
from worker.history.tail import BEGINNING, follow_events
from worker.history.writer import EventWriter
from worker.server.client import RedisClient
from worker.server.connection import aconnect, connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app, live, streaming
from worker.web.live import LiveTail


@pytest.fixture
def web(settings: Settings, valkey: EmbeddedServer) -> Iterator[httpx.Client]:
    with serving(create_app(settings)) as client:
        yield client


@pytest.fixture
def writer(settings: Settings, valkey: EmbeddedServer) -> Iterator[EventWriter]:
    made = EventWriter(lambda: connect(settings), settings)
    yield made
    made.close(5)


def event(number: int, actor: str = "count", **values: object) -> StatusEvent:
    about: dict[str, Any] = {"text": str(number), "actor": actor, "subject": {"number": number}} | values
    return StatusEvent(event=f"{actor}.started", state=State.STARTED, **about)


def record(writer: EventWriter, count: int, *, first: int = 0, every: float = 0.0) -> None:
    """Records numbered events, one after the other, and waits until they are stored."""
    stop = threading.Event()
    for number in range(first, first + count):
        writer.record(event(number))
        if every:
            stop.wait(every)
        elif number % 1_000 == 0:
            # A writer to which more comes than it can write drops what begins.
            assert writer.flush(10)
    assert writer.flush(10)
    assert writer.dropped == 0


def numbers(sent: list[Sent]) -> list[int]:
    return [int(one.data["text"]) for one in sent if one.kind == "message"]


def read_until(found: Iterator[Sent], wanted: Callable[[Sent], bool]) -> list[Sent]:
    read = []
    for one in found:
        read.append(one)
        if wanted(one):
            return read
    raise AssertionError("the stream ended")


def is_number(number: int) -> Callable[[Sent], bool]:
    return lambda one: one.kind == "message" and one.data["text"] == str(number)


def test_what_happens_is_seen_while_it_happens(web: httpx.Client, writer: EventWriter) -> None:
    """From the time of connecting on: in order, each with its position, and its traceback hidden."""
    record(writer, 3)
    with following(web) as found:
        assert next(found).kind == "position"
        record(writer, 3, first=3)
        writer.record(event(6, error=ErrorInfo("ValueError", "no", "secret"), queue="q", message_id="m"))
        sent = read_until(found, is_number(6))
    assert numbers(sent) == [3, 4, 5, 6]
    assert len({one.id for one in sent}) == 4
    last = sent[-1].data
    assert (last["event"], last["state"], last["subject"]) == ("count.started", "started", {"number": 6})
    assert last["error"] == {"type": "ValueError", "text": "no", "traceback": None}


def test_only_what_matches_is_sent(web: httpx.Client, writer: EventWriter) -> None:
    """And the position goes on although nothing matches."""
    with following(web, actor="other") as found:
        start = next(found)
        record(writer, 5)
        writer.record(event(7, actor="other"))
        assert numbers(read_until(found, is_number(7))) == [7]
    with following(web, start.id, subject="number=4") as found:
        next(found)
        assert numbers([next(found)]) == [4]


@pytest.mark.parametrize("kept", [20, 10_000], ids=["little", "much"])
def test_browsers_that_are_cut_off_and_come_back_get_everything_once(
    settings: Settings, valkey: EmbeddedServer, writer: EventWriter, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Under load, wherever each was cut off, and whether or not the process has kept what comes next."""
    monkeypatch.setattr(live, "KEPT", kept)
    monkeypatch.setattr(live, "AT_ONCE", min(kept, live.AT_ONCE))
    count = 3_000
    results: dict[int, list[int]] = {}

    def follow(web: httpx.Client, seed: int) -> None:
        chance = random.Random(seed)
        last = BEGINNING
        got: list[int] = []
        while not got or got[-1] != count - 1:
            with following(web, last) as found:
                for one in islice(found, chance.choice([1, 2, 7, 300, 1_000])):
                    assert one.kind != "missed"
                    last = one.id
                    if one.kind == "message":
                        got.append(int(one.data["text"]))
                    if got and got[-1] == count - 1:
                        break
        results[seed] = got

    with serving(create_app(settings)) as web:
        threads = [threading.Thread(target=follow, args=(web, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        record(writer, count, every=0.0004)
        for thread in threads:
            thread.join(60)
    stored = []
    for one in follow_events(connect(settings), EventFilter(), after=BEGINNING):
        if one.event is None:
            break
        stored.append(int(one.event.text))
    assert sorted(stored) == list(range(count))
    assert results == dict.fromkeys(range(4), stored)


def test_a_browser_that_is_alone_and_comes_back_again_and_again_gets_everything_once(
    settings: Settings, valkey: EmbeddedServer, writer: EventWriter
) -> None:
    """Under load: the reading ends with each that leaves and begins with each that comes, and is never done twice."""
    count, last, got = 2_000, BEGINNING, [-1]
    with serving(create_app(settings)) as web:
        load = threading.Thread(target=record, args=(writer, count), kwargs={"every": 0.001})
        load.start()
        while got[-1] != count - 1:
            with following(web, last) as found:
                for one in islice(found, 12):
                    assert one.kind != "missed"
                    last = one.id
                    got += numbers([one])
                    if got[-1] == count - 1:
                        break
        load.join(60)
    assert len(got) == len(set(got))
    assert sorted(got[1:]) == list(range(count))


def test_a_browser_that_does_not_read_holds_up_none_and_misses_nothing(
    settings: Settings, valkey: EmbeddedServer, writer: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It falls behind what is kept, and catches up by itself."""
    monkeypatch.setattr(live, "KEPT", 50)
    count = 12_000
    with serving(create_app(settings)) as web, following(web) as slow, following(web) as quick:
        next(slow), next(quick)
        record(writer, count)
        assert numbers(read_until(quick, is_number(count - 1))) == list(range(count))
        assert numbers(read_until(slow, is_number(count - 1))) == list(range(count))


def test_what_is_gone_is_told_as_missed(web: httpx.Client, writer: EventWriter, client: RedisClient) -> None:
    """To who comes back too late; then it goes on with what there is."""
    with following(web) as found:
        next(found)
        record(writer, 1)
        last = next(found).id
    for number in range(1, 6):
        record(writer, 1, first=number)
    client.xtrim("{worker}:events", maxlen=2, approximate=False)
    with following(web, last) as found:
        sent = read_until(found, is_number(5))
    assert [one.kind for one in sent] == ["position", "missed", "message", "message"]
    assert numbers(sent) == [4, 5]


def test_a_position_of_another_server_is_told_as_missed(web: httpx.Client, writer: EventWriter) -> None:
    """It goes on with what comes now."""
    with following(web, "99999999999999-0") as found:
        assert [next(found).kind, next(found).kind] == ["position", "missed"]
        record(writer, 1)
        assert numbers([next(found)]) == [0]


@pytest.mark.parametrize(
    "position",
    [
        "x",
        "1-x",
        "1-1/x",
        "-",
        "1" * 50,
        "²",
        "0-0/3",
        "0-0/0",
        "0/1",
        f"5-{2**64}",
        str(2**64),
        "5-99999999999999999999",
    ],
)
def test_what_is_no_position_is_refused(web: httpx.Client, position: str) -> None:
    """In a line: also what no entry can be called, and a part of the beginning, which is none."""
    answer = web.get("/api/events/live", params={"after": position})
    assert answer.status_code == 422
    assert "position" in answer.json()["detail"]


@pytest.mark.parametrize("position", ["0-0", "0", "5-0/3", f"5-{2**64 - 1}", f"5-{2**64 - 1}/1"])
def test_a_position_of_long_ago_is_one(web: httpx.Client, writer: EventWriter, position: str) -> None:
    """Everything that is kept comes after it."""
    record(writer, 1)
    with following(web, position) as found:
        assert numbers(read_until(found, is_number(0))) == [0]


def test_positions_are_sent_while_nothing_matches(
    web: httpx.Client, writer: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that who comes back need not look through what it did not want, and a lost connection is noticed."""
    monkeypatch.setattr(streaming, "HEARTBEAT", 0.05)
    with following(web, actor="nobody") as found:
        start = next(found)
        record(writer, 1)
        later = read_until(found, lambda one: one.id != start.id)
    assert {one.kind for one in later} == {"position"}


@pytest.mark.own_server
def test_the_tail_survives_a_restart_of_the_message_server(
    web: httpx.Client, writer: EventWriter, valkey: EmbeddedServer
) -> None:
    """Nobody has to connect again, and nothing is missed."""
    with following(web) as found:
        next(found)
        record(writer, 1)
        assert numbers([next(found)]) == [0]
        valkey.stop()
        valkey.ensure_running()
        record(writer, 5, first=1)
        assert numbers(read_until(found, is_number(5))) == [1, 2, 3, 4, 5]


@pytest.mark.own_server
def test_a_message_server_that_is_away_is_told_before_the_stream_begins(
    web: httpx.Client, valkey: EmbeddedServer
) -> None:
    """As for any other question."""
    assert web.get("/api/states").status_code == 200
    valkey.stop()
    answer = web.get("/api/events/live")
    assert (answer.status_code, answer.json()["error"]) == (503, "service_unavailable")


def test_streams_end_promptly_when_the_process_ends(settings: Settings, valkey: EmbeddedServer) -> None:
    """However long their browsers would go on."""
    with serving(create_app(settings)) as web, following(web) as found:
        next(found)
        began = time.monotonic()
    assert time.monotonic() - began < 15


def test_nothing_is_read_while_nobody_follows(settings: Settings, valkey: EmbeddedServer, client: RedisClient) -> None:
    """The reader begins with the first follower and ends with the last."""

    def is_read() -> bool:
        return any(one["cmd"] == "xread" for one in client.client_list())

    with serving(create_app(settings)) as web:
        with following(web) as found:
            next(found)
            wait_until(is_read)
        wait_until(lambda: not is_read())


@pytest.mark.clock
def test_events_reach_browsers_soon(web: httpx.Client, writer: EventWriter) -> None:
    """At the median in less than 100 ms, from the event's own time on, with many a second and several browsers."""
    count, delays = 2_000, []

    def follow(found: Iterator[Sent]) -> None:
        for one in found:
            if one.kind == "message":
                delays.append(time.time() - datetime.fromisoformat(one.data["time"]).timestamp())
                if one.data["text"] == str(count - 1):
                    return

    began = time.monotonic()
    with following(web) as found:
        next(found)
        record(writer, 200)
        read_until(found, is_number(199))
    # A third of what this machine can do, and a thousand a second at most.
    every = max(0.001, 3 * (time.monotonic() - began) / 200)
    with following(web) as first, following(web) as second:
        threads = [threading.Thread(target=follow, args=(found,)) for found in (first, second)]
        for thread in threads:
            thread.start()
        record(writer, count, every=every)
        for thread in threads:
            thread.join(TIMEOUT)
    assert len(delays) == 2 * count
    assert statistics.median(delays) < 0.1


@pytest.mark.own_server
def test_a_follower_hears_since_when_the_server_does_not_answer(settings: Settings, valkey: EmbeddedServer) -> None:
    """A page that shows the tail would say "live" over old events; then it hears that the server is back."""
    quick = settings.model_copy(update={"server_timeout": timedelta(seconds=1)})
    pid = int((valkey.folder / "server.pid").read_text())
    with serving(create_app(quick)) as web, following(web) as found:
        next(found)
        began = datetime.now(UTC)
        os.kill(pid, signal.SIGSTOP)
        try:
            away = read_until(found, lambda one: one.kind == "away")[-1]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert abs(datetime.fromisoformat(away.data["since"]) - began) < timedelta(seconds=10)
        assert read_until(found, lambda one: one.kind == "back")


async def test_of_many_followers_one_is_told_in_each_turn_of_the_loop(
    settings: Settings, valkey: EmbeddedServer, writer: EventWriter
) -> None:
    """Sending what is new to all of them in one turn would block every other answer."""
    loop, turn, told_in = asyncio.get_running_loop(), 0, list[int]()

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        if len(told_in) < len(followers):
            loop.call_soon(count_turns)

    async def follow(tail: LiveTail) -> None:
        async with aclosing(tail.follow(None, idle=60)) as following:
            async for batch in following:
                if batch.told:
                    told_in.append(turn)
                    return
                ready.release()

    client, ready = await aconnect(settings), asyncio.Semaphore(0)
    tail = LiveTail(client)
    followers = [asyncio.ensure_future(follow(tail)) for _ in range(20)]
    for _ in followers:
        await ready.acquire()
    count_turns()
    await asyncio.to_thread(record, writer, 1)
    await asyncio.gather(*followers)
    assert len(set(told_in)) == len(followers)
    await tail.close()
    await client.aclose()
