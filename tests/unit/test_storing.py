"""The thread that stores what others hand it, against a store in memory that fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from tests.support.waiting import wait_until
from worker.history import storing
from worker.history.storing import Pace, StoringThread
from worker.history.waiting import Item
from worker.server.client import RedisClient
from worker.server.keys import Namespace
from worker.server.scripts import Argument

NO_MEMORY = redis.exceptions.OutOfMemoryError("used memory > 'maxmemory'")


@dataclass(slots=True, eq=False)
class Thing(Item):
    """Something to store: texts, under a name that others may share."""

    name: str
    texts: list[str] = field(default_factory=list)
    can_be_dropped: bool = False
    needs_memory: bool = False

    @property
    def key(self) -> str:
        return self.name

    @property
    def may_be_dropped(self) -> bool:
        return self.can_be_dropped

    def absorb(self, later: Thing) -> None:
        self.texts += later.texts
        self.needs_memory = self.needs_memory or later.needs_memory


class Shelf(StoringThread[Thing]):
    """Stores in memory, as the server does: a name that it knows changes nothing.

    Attributes:
        before: Called with each group before it is stored; raises what the server says, or the connection.
        after: Called with each group after that.
    """

    def __init__(self, *, group: int = 3, at_once: int = 2, most: int = 1000) -> None:
        self.opened = 0
        self.names: list[str] = []
        self.trips: list[list[list[str]]] = []
        self.kept: list[tuple[str, str]] = []
        self.given_up: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.before: Callable[[list[str]], None] = lambda _: None
        self.after: Callable[[list[str]], None] = lambda _: None
        super().__init__("shelf", "me", self._open, Pace(0.001, group, at_once, most))

    def _open(self) -> RedisClient:
        self.opened += 1
        return RedisClient(Namespace("test"))

    def send(self, client: RedisClient, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        self.trips.append([])
        return [self._keep([str(word) for word in call]) for call in calls]

    def _keep(self, words: list[str]) -> Any:
        name, *pairs = words
        try:
            self.before(words)
            if name not in self.names:
                self.trips[-1].append([pair.partition("=")[0] for pair in pairs])
                self.kept += [(pair.partition("=")[0], pair.partition("=")[2]) for pair in pairs]
                self.names.append(name)
            self.after(words)
        except redis.ResponseError as error:
            return error
        return len(pairs)

    def arguments(self, name: str, items: Sequence[Thing]) -> list[Argument]:
        return [name, *(f"{item.name}={','.join(item.texts)}" for item in items)]

    def stored(self, items: Sequence[Thing], answer: Any) -> None:
        assert answer == len(items)
        self.told += [item.name for item in items]

    def give_up(self, items: Sequence[Thing], why: str) -> None:
        self.given_up += [(item.name, why) for item in items]


class Thrifty(Shelf):
    """Needs no memory for most things, like the committer."""

    def do_without_memory(self, client: RedisClient, items: Sequence[Thing]) -> Sequence[Thing]:
        self.kept += [(item.name, "without memory") for item in items if not item.needs_memory]
        return [item for item in items if item.needs_memory]


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_RETRY_DELAYS", (0.001,))
    monkeypatch.setattr(storing, "_MEMORY_DELAY", 0.001)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.close(5)


def test_what_many_threads_hand_over_is_stored_once_and_each_threads_in_its_order(shelf: Shelf) -> None:
    """However they come together in groups."""

    def hand_over(thread: int) -> None:
        for number in range(200):
            shelf.take(Thing(f"{thread}:{number}", [str(number)]))

    threads = [threading.Thread(target=hand_over, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert shelf.flush(10)
    assert len(shelf.kept) == len(shelf.told) == 800
    for thread in range(4):
        mine = [name for name, _ in shelf.kept if name.startswith(f"{thread}:")]
        assert mine == [f"{thread}:{number}" for number in range(200)]
    assert all(len(group) <= 3 for trip in shelf.trips for group in trip)
    assert all(len(trip) <= 2 for trip in shelf.trips)


def test_nothing_is_opened_before_there_is_something_to_store(shelf: Shelf) -> None:
    """Neither a thread nor a connection."""
    assert shelf.flush(0)
    assert (shelf._thread, shelf.opened) == (None, 0)
    shelf.take(Thing("a"))
    assert shelf.flush(10)
    assert shelf.opened == 1


def test_things_of_one_name_that_wait_become_one(shelf: Shelf) -> None:
    """In the order in which they came, at the place of the first."""
    gate = threading.Event()

    def wait(words: list[str]) -> None:
        assert gate.wait(10)

    shelf.before = wait
    shelf.take(Thing("first"))
    wait_until(lambda: shelf.trips)
    for name, text in (("a", "1"), ("b", "2"), ("a", "3")):
        shelf.take(Thing(name, [text]))
    gate.set()
    assert shelf.flush(10)
    assert shelf.kept == [("first", ""), ("a", "1,3"), ("b", "2")]


def test_what_is_stored_although_its_answer_was_lost_is_stored_once(shelf: Shelf) -> None:
    """It is sent again under its name, and what came meanwhile under another."""

    def lose(words: list[str]) -> None:
        shelf.take(Thing("later"))
        shelf.after = lambda _: None
        raise redis.ConnectionError("cut")

    shelf.after = lose
    shelf.take(Thing("a", ["1"]))
    wait_until(lambda: "later" in shelf.told)
    assert shelf.kept == [("a", "1"), ("later", "")]
    assert shelf.told == ["a", "later"]
    assert shelf.error is None


def test_what_the_server_refuses_is_sent_again_under_another_name(shelf: Shelf) -> None:
    """The server knows the name, and has not stored what bears it."""

    def refuse(words: list[str]) -> None:
        shelf.names.append(words[0])
        shelf.before = lambda _: None
        raise redis.exceptions.ReadOnlyError("a replica")

    shelf.before = refuse
    shelf.take(Thing("a", ["1"]))
    assert shelf.flush(10)
    assert shelf.kept == [("a", "1")]


@pytest.mark.parametrize(
    "error",
    [redis.ResponseError("user_script:3: bad argument"), UnicodeEncodeError("utf-8", "\udc80", 0, 1, "no")],
    ids=["script", "encoding"],
)
def test_one_thing_that_cannot_be_stored_does_not_hold_up_the_others(shelf: Shelf, error: Exception) -> None:
    """Neither those of its group nor those behind it; it is given up by itself."""

    def refuse(words: list[str]) -> None:
        if any(word.startswith("bad") for word in words):
            raise error

    shelf.before = refuse
    for name in ("a", "bad", "b", "c", "d"):
        shelf.take(Thing(name))
    assert shelf.flush(10)
    assert sorted(shelf.told) == ["a", "b", "c", "d"]
    assert shelf.given_up == [("bad", "the server does not accept it")]


def test_what_passes_at_the_server_is_waited_for(shelf: Shelf) -> None:
    """A full disk or a busy script is no fault of what is stored, however often the server says so."""
    answers = [redis.ResponseError("MISCONF no disk"), redis.ResponseError("BUSY a script runs")] * 3

    def refuse(words: list[str]) -> None:
        if answers:
            raise answers.pop()

    shelf.before = refuse
    shelf.take(Thing("a"))
    assert shelf.flush(10)
    assert (shelf.told, shelf.given_up) == (["a"], [])


def test_while_the_server_is_away_only_what_may_be_dropped_is(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and told once, when everything else is stored; an error tells why until then."""
    shelf, away = Shelf(most=10), threading.Event()

    def fail(words: list[str]) -> None:
        if not away.is_set():
            raise redis.ConnectionError("away")

    shelf.before = fail
    for number in range(50):
        shelf.take(Thing(f"droppable{number}", can_be_dropped=True))
        shelf.take(Thing(f"lasting{number}"))
    wait_until(lambda: shelf.error == "away")
    assert not shelf.flush(0.01)
    away.set()
    assert shelf.flush(10)
    assert shelf.close(10)
    assert len([name for name in shelf.told if name.startswith("lasting")]) == 50
    assert len(shelf.told) + shelf.dropped == 100
    assert shelf.dropped > 0
    assert shelf.error is None
    told = [" ".join(one.getMessage().split()) for one in caplog.records if "were dropped" in one.getMessage()]
    assert len(told) == 1
    assert told[0].endswith(f"count={shelf.dropped}")


def test_a_connection_that_cannot_be_opened_is_tried_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is stored when it can be."""
    failures = iter([OSError("no route")] * 3)

    def open_client() -> RedisClient:
        for error in failures:
            raise error
        return RedisClient(Namespace("test"))

    monkeypatch.setattr(shelf, "_open_client", open_client)
    shelf.take(Thing("a"))
    assert shelf.flush(10)
    assert shelf.told == ["a"]


def test_whoever_waits_does_not_wait_for_what_comes_later(shelf: Shelf) -> None:
    """A flush ends while others go on bringing things."""
    ending = threading.Event()

    def bring() -> None:
        while not ending.is_set():
            shelf.take(Thing("x"))

    bringing = threading.Thread(target=bring)
    bringing.start()
    try:
        for number in range(20):
            shelf.take(Thing(str(number)))
            assert shelf.flush(10)
            assert str(number) in shelf.told
    finally:
        ending.set()
        bringing.join()


def test_what_waits_for_memory_holds_up_neither_what_needs_none_nor_what_comes_later() -> None:
    """Not even while somebody waits until everything is stored."""
    shelf, memory = Thrifty(), threading.Event()

    def refuse(words: list[str]) -> None:
        if not memory.is_set():
            raise NO_MEMORY

    shelf.before = refuse
    shelf.take(Thing("waits", ["1"], needs_memory=True))
    shelf.take(Thing("needs none"))
    assert not shelf.flush(0.01)
    for number in range(20):
        shelf.take(Thing(f"later{number}"))
    shelf.take(Thing("waits", ["2"]))
    wait_until(lambda: ("later19", "without memory") in shelf.kept)
    assert ("needs none", "without memory") in shelf.kept
    assert shelf.error is not None
    assert [item.name for item in shelf.waiting.not_stored()] == ["waits"]
    memory.set()
    assert shelf.flush(10)
    assert ("waits", "1,2") in shelf.kept
    shelf.close(5)


def test_where_nothing_can_be_done_without_memory_the_order_is_kept() -> None:
    """What could not be stored is stored before what came after it."""
    shelf, errors = Shelf(at_once=1), [NO_MEMORY] * 3

    def refuse(words: list[str]) -> None:
        if errors:
            raise errors.pop()

    shelf.before = refuse
    for number in range(9):
        shelf.take(Thing(str(number)))
    assert shelf.flush(10)
    assert shelf.told == [str(number) for number in range(9)]
    shelf.close(5)


def test_what_cannot_be_stored_before_the_end_is_given_up_in_time(shelf: Shelf) -> None:
    """It is told, and the thread ends."""

    def fail(words: list[str]) -> None:
        raise redis.ConnectionError("away")

    shelf.before = fail
    for number in range(10):
        shelf.take(Thing(str(number)))
    assert not shelf.close(0.05)
    assert sorted(shelf.given_up) == [(str(number), "the process ends") for number in range(10)]
    thread = shelf._thread
    assert thread is not None
    wait_until(lambda: not thread.is_alive())


def test_closing_stores_what_waits(shelf: Shelf) -> None:
    """The thread has ended when it returns; a second time does nothing."""
    for number in range(100):
        shelf.take(Thing(str(number)))
    assert shelf.close(10)
    assert len(shelf.told) == 100
    assert shelf._thread is not None
    assert not shelf._thread.is_alive()
    assert shelf.close(10)


def test_what_begins_anew_knows_nothing_of_what_was_before(shelf: Shelf) -> None:
    """As in a forked child: the names of its groups are others, and its thread is its own."""
    shelf.take(Thing("a"))
    assert shelf.flush(10)
    assert shelf.close(10)
    of_the_parent = shelf._thread
    shelf.waiting.put(Thing("of the parent"))
    shelf.begin_anew("child")
    shelf.take(Thing("of the child"))
    assert shelf.flush(10)
    assert shelf._thread is not of_the_parent
    assert "child:0" in shelf.names
    assert shelf.told == ["a", "of the child"]
