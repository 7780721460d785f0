"""Where taken messages wait for a worker thread."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

import pytest
from dramatiq.common import iter_queue
from hypothesis import given
from hypothesis import strategies as st

from worker.broker.work_queue import WorkQueue


@dataclass(frozen=True)
class Item:
    priority: int
    number: int


@given(priorities=st.lists(st.integers(-3, 3)))
def test_the_most_urgent_comes_first_and_in_their_order_those_that_are_as_urgent(priorities: list[int]) -> None:
    """As Dramatiq's own queue has it."""
    waiting: WorkQueue[Item] = WorkQueue(1)
    items = [Item(priority, number) for number, priority in enumerate(priorities)]
    for item in items:
        waiting.put(item)
    assert waiting.qsize() == len(items)
    assert list(iter_queue(waiting)) == sorted(items, key=lambda item: (item.priority, item.number))


def test_who_waits_in_vain_is_told() -> None:
    """At once, or after the time it gave."""
    with pytest.raises(queue.Empty):
        WorkQueue(1).get_nowait()
    with pytest.raises(queue.Empty):
        WorkQueue(1).get(timeout=0.01)


def test_threads_that_put_and_take_lose_and_double_nothing() -> None:
    """Each item is taken once, whoever takes it."""
    waiting: WorkQueue[Item] = WorkQueue(1)
    taken: list[int] = []
    lock = threading.Lock()

    def put(thread: int) -> None:
        for number in range(1_000):
            waiting.put(Item(number % 3, thread * 1_000 + number))

    def take() -> None:
        for _ in range(1_000):
            item = waiting.get(timeout=10)
            with lock:
                taken.append(item.number)
            waiting.task_done()

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    threads += [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == list(range(4_000))
    assert waiting.unfinished_tasks == 0


def test_closing_frees_threads_that_would_wait_for_ever() -> None:
    """As the standard library's queue has them wait after an unlucky moment; what is left is still handed out."""
    waiting: WorkQueue[Item] = WorkQueue(4)
    freed: list[int] = []

    def take() -> None:
        with pytest.raises(queue.Empty):
            waiting.get(timeout=None)
        freed.append(threading.get_ident())

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    waiting.close()
    for thread in threads:
        thread.join(10)
    assert len(freed) == len(threads)
    waiting.put(Item(0, 1))
    assert waiting.get(timeout=1) == Item(0, 1)
    with pytest.raises(queue.Empty):
        waiting.get(timeout=0.01)


def test_joining_waits_for_what_is_being_worked_on() -> None:
    """Not only for what waits."""
    waiting: WorkQueue[Item] = WorkQueue(1)
    waiting.put(Item(0, 1))
    taken, finish = threading.Event(), threading.Event()

    def work() -> None:
        waiting.get()
        taken.set()
        finish.wait(10)
        waiting.task_done()

    worker = threading.Thread(target=work)
    joiner = threading.Thread(target=waiting.join)
    worker.start()
    assert taken.wait(10)
    joiner.start()
    joiner.join(0.05)
    assert joiner.is_alive()
    finish.set()
    joiner.join(10)
    worker.join(10)
    assert not joiner.is_alive()
