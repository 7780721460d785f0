"""What a process has taken, and how much more it may take."""

from __future__ import annotations

import itertools
import queue
import threading
from typing import cast

import dramatiq
import pytest

from tests.support.attempts import attempt_run
from tests.support.waiting import wait_until
from worker.broker import holdings as holdings_module
from worker.broker import room as room_module
from worker.broker.holdings import Holdings
from worker.broker.room import MOST_AHEAD
from worker.broker.taken import TakenMessage
from worker.broker.work_queue import WorkQueue
from worker.server.keys import LOOP, THREAD

numbers = itertools.count()


def taken(message_id: str = "", *, queue: str = "q", epoch: int = 1, runner: str = THREAD) -> TakenMessage:
    number = next(numbers)
    message: dramatiq.Message[None] = dramatiq.Message(queue, "a", (), {}, {}, message_id or f"m{number}")
    return TakenMessage(
        message,
        stream=f"{{worker}}:q:{queue}:normal:{runner}",
        entry=f"{number}-0",
        fence=1,
        attempt=1,
        losses=0,
        waited_ms=0.0,
        epoch=epoch,
        payload=b"{}",
    )


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(room_module, "time", made)
    return made


def opened(threads: int) -> Holdings:
    return Holdings({THREAD: WorkQueue(threads)}, lambda _: True)


def room_in(held: Holdings, timeout: float = 0.0, runner: str = THREAD) -> int:
    """The number of messages that may be taken for a runner."""
    return held.wait_for_room(timeout).get(runner, 0)


def next_of(held: Holdings) -> TakenMessage | None:
    """What a thread takes, or None."""
    try:
        waiting = held.rooms[THREAD].runner
        assert isinstance(waiting, WorkQueue)
        return cast("TakenMessage", waiting.get_nowait())
    except queue.Empty:
        return None


def run(held: Holdings, clock: Clock, *, seconds_each: float, attempts: int, threads: int) -> int:
    """Threads run attempts of that length, and the room is filled whenever there is some; the most that was held."""
    most = 0
    running: list[TakenMessage] = []
    for _ in range(0, attempts, threads):
        room = room_in(held)
        held.put([taken() for _ in range(room)])
        while len(running) < threads and (message := next_of(held)) is not None:
            message.run = attempt_run()
            running.append(message)
        most = max(most, len(held))
        clock.now += seconds_each
        while running:
            held.ended(running.pop())
    return most


def test_at_first_there_is_room_for_what_the_threads_can_run() -> None:
    """Nobody knows yet how long attempts take."""
    assert room_in(opened(8)) == 8


def test_of_slow_attempts_only_as_many_are_held_as_there_are_threads(clock: Clock) -> None:
    """Other processes find work."""
    assert run(opened(4), clock, seconds_each=1.0, attempts=400, threads=4) == 4


def test_of_quick_attempts_more_are_taken_ahead(clock: Clock) -> None:
    """As many as will be run in the next moments, so that no thread waits for the server."""
    most = run(opened(4), clock, seconds_each=0.001, attempts=4000, threads=4)
    assert 4 + 200 < most <= 4 + 400


def test_however_quick_attempts_are_what_is_taken_ahead_is_bounded(clock: Clock) -> None:
    """A process that dies holds up only so many."""
    assert run(opened(8), clock, seconds_each=0.0001, attempts=100_000, threads=8) <= 8 + MOST_AHEAD


def test_when_attempts_become_slow_less_is_taken_ahead(clock: Clock) -> None:
    """Within a few looks."""
    held = opened(4)
    run(held, clock, seconds_each=0.001, attempts=4000, threads=4)
    while (message := next_of(held)) is not None:
        held.ended(message)
    for _ in range(20):
        clock.now += 1.0
        held.wait_for_room(0)
    assert run(held, clock, seconds_each=1.0, attempts=40, threads=4) == 4


def test_an_attempt_that_ends_makes_room_at_once() -> None:
    """Whoever waits for room is told."""
    held = opened(1)
    message = taken()
    held.put([message])
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(room_in(held, 30)))
    waiter.start()
    held.ended(message)
    waiter.join(10)
    assert found == [1]


def test_a_runner_without_work_for_a_moment_is_not_taken_for_a_slow_one(clock: Clock) -> None:
    """It waited for the server: if less were taken ahead then, it would wait ever more often."""
    held = opened(4)
    run(held, clock, seconds_each=0.001, attempts=4000, threads=4)
    while (message := next_of(held)) is not None:
        held.ended(message)
    room = room_in(held)
    assert room > 200
    for _ in range(3):
        clock.now += 0.03
        assert room_in(held) == room


def test_an_end_counts_once() -> None:
    """Told twice that the same attempt has ended, there is no more room than there is."""
    held = opened(2)
    message, other = taken(), taken()
    held.put([message, other])
    held.ended(message)
    held.ended(message)
    assert room_in(held) == 1


def test_the_end_of_an_older_delivery_is_not_that_of_the_newer() -> None:
    """A process that lost its lease may be given the same message again while its old attempt still runs."""
    held = opened(4)
    older, newer = taken("m", epoch=1), taken("m", epoch=2)
    held.put([older])
    assert next_of(held) is older
    held.forget()
    held.put([newer])
    held.ended(older)
    assert held.holds("m") is newer
    assert room_in(held) == 3


def test_a_message_that_is_dealt_with_otherwise_does_not_wait() -> None:
    """That of an actor which nobody knows here."""
    held = Holdings({THREAD: WorkQueue(4)}, lambda message: message.queue_name == "q")
    messages = [taken(queue="q"), taken(queue="r"), taken(queue="q")]
    held.put(messages)
    assert [next_of(held), next_of(held), next_of(held)] == [messages[0], messages[2], None]


def test_each_queue_is_opened_once() -> None:
    """The reader is roused for a new one."""
    held = opened(1)
    assert held.open_queue("q")
    assert not held.open_queue("q")
    assert held.open_queue("r")
    assert held.queues == ["q", "r"]


def test_what_waits_is_taken_back_and_nothing_more_is_taken() -> None:
    """At a shutdown; what a thread has already is its own."""
    held = opened(4)
    messages = [taken() for _ in range(3)]
    held.put(messages)
    running = next_of(held)
    held.close()
    assert held.take_waiting() == messages[1:]
    assert running is messages[0]
    assert not held.is_open()
    assert next_of(held) is None
    assert held.take_waiting() == []


def test_what_waits_can_be_put_back_in_its_order() -> None:
    """When too much was taken, the first of it stays."""
    held = opened(2)
    messages = [taken() for _ in range(4)]
    held.put(messages)
    assert held.take_waiting() == messages
    held.put_back(messages[:2])
    assert [next_of(held) for _ in range(3)] == [*messages[:2], None]
    assert held.is_open()


def test_what_went_to_others_is_forgotten_but_for_what_runs() -> None:
    """A thread cannot be told to stop; its end is refused by the server."""
    held = opened(4)
    messages = [taken() for _ in range(3)]
    held.put(messages)
    running = next_of(held)
    held.forget()
    assert next_of(held) is None
    assert running is not None
    assert held.holds(running.message_id) is running
    assert room_in(held) == 3
    assert not held.knows(running.stream, running.entry)


def test_an_entry_is_known_until_its_end_is_stored() -> None:
    """After an answer that was lost, only those that are not known are asked for."""
    held = opened(1)
    message = taken()
    held.put([message])
    assert held.knows(message.stream, message.entry)
    held.ended(message)
    assert held.knows(message.stream, message.entry)
    held.stored(message)
    assert not held.knows(message.stream, message.entry)


def test_a_delivery_that_is_cancelled_on_its_way_here_is_known_when_it_comes() -> None:
    """The order may be read before the answer that brings the message; another delivery of it is not meant."""
    held = opened(1)
    first, other = taken("cancelled"), taken("delivered-again")
    held.cancel("cancelled", first.fence)
    held.cancel("delivered-again", other.fence - 1)
    held.put([first, other])
    assert (held.is_cancelled(first), held.is_cancelled(other)) == (True, False)
    held.cancel("delivered-again", other.fence)
    assert held.is_cancelled(other)


def test_only_so_many_cancelled_deliveries_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest: what was cancelled long ago is not on its way any more."""
    monkeypatch.setattr(holdings_module, "CANCELLED_KEPT", 2)
    held = opened(4)
    messages = [taken() for _ in range(4)]
    for message in messages:
        held.cancel(message.message_id, message.fence)
    held.put(messages)
    assert [held.is_cancelled(message) for message in messages] == [False, False, True, True]


def test_a_full_runner_leaves_the_other_its_room() -> None:
    """Messages are taken for those runners only that can begin them."""
    held = Holdings({THREAD: WorkQueue(2), LOOP: WorkQueue(3)}, on_loop)
    assert held.wait_for_room(0) == {THREAD: 2, LOOP: 3}
    messages = [taken(runner=LOOP) for _ in range(3)]
    held.put(messages)
    assert held.wait_for_room(0) == {THREAD: 2}
    held.ended(messages[0])
    assert held.wait_for_room(0) == {THREAD: 2, LOOP: 1}


def test_what_others_would_run_elsewhere_takes_room_where_it_was_asked_for() -> None:
    """A process that runs on its loop what lies in the stream for threads has enough of that, too."""
    held = Holdings({THREAD: WorkQueue(2), LOOP: WorkQueue(3)}, on_loop)
    messages = [taken(runner=THREAD) for _ in range(2)]
    held.put(messages)
    assert held.wait_for_room(0) == {LOOP: 3}
    assert held.rooms[LOOP].runner.drain() == messages
    held.ended(messages[0])
    assert held.wait_for_room(0) == {THREAD: 1, LOOP: 3}


def test_a_quick_runner_that_has_room_in_a_moment_is_asked_for_with_the_others(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have room all the time: to ask for them alone would keep it waiting for that answer."""
    held = Holdings({THREAD: WorkQueue(2), LOOP: WorkQueue(4)}, on_loop)
    for _ in range(10):
        clock.now += 0.05
        running = [taken(runner=LOOP) for _ in range(held.wait_for_room(0).get(LOOP, 0))]
        held.put(running)
        for message in held.rooms[LOOP].runner.drain():
            message.run = attempt_run()
            held.ended(message)
    while room := held.wait_for_room(0).get(LOOP, 0):
        held.put([taken(runner=LOOP) for _ in range(room)])
    waiting = held.rooms[LOOP].runner.drain()

    def end_some() -> None:
        wait_until(lambda: held._room_made.asleep)
        for message in waiting[:300]:
            held.ended(message)

    monkeypatch.setattr(holdings_module, "MOMENT", 60.0)
    thread = threading.Thread(target=end_some)
    thread.start()
    assert held.wait_for_room(0).keys() == {THREAD, LOOP}
    thread.join()


def on_loop(message: TakenMessage) -> bool:
    message.runner = LOOP
    return True
