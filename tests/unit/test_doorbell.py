"""A sleeper and those who bring it work: whatever the order of their steps, no work is left while it sleeps."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from worker.threads.doorbell import Doorbell


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns after a few instructions."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_where_there_is_work_nobody_sleeps() -> None:
    """The sleeper looks before it sleeps."""
    bell = Doorbell()
    bell.sleep(unless=lambda: True)
    assert not bell.ring()


def test_work_that_comes_after_the_look_ends_the_sleep() -> None:
    """Whoever brings it sees that the thread is about to sleep."""
    bell, heard = Doorbell(), []

    def look_too_early() -> bool:
        heard.append(bell.ring())
        return False

    bell.sleep(unless=look_too_early)
    assert heard == [True]


def test_a_bell_that_many_ring_wakes_once_or_for_nothing_and_never_fails() -> None:
    """Whoever rings second, or too late, does no harm."""
    bell, looks = Doorbell(), []

    def ring_twice() -> bool:
        looks.append([bell.ring(), bell.ring()])
        return False

    bell.sleep(unless=ring_twice)
    bell.sleep(unless=ring_twice)
    assert looks == [[True, True], [True, True]]
    assert not bell.ring()


def test_a_sleep_ends_in_time() -> None:
    """Without any work."""
    bell = Doorbell()
    bell.sleep(unless=lambda: False, timeout=0.01)
    assert not bell.ring()


def test_whoever_is_interrupted_in_its_sleep_sleeps_no_more() -> None:
    """An error of the look leaves the bell as it was."""
    bell = Doorbell()
    with pytest.raises(ZeroDivisionError):
        bell.sleep(unless=lambda: 1 / 0)
    assert not bell.ring()


@settings(
    deadline=None,
    max_examples=25,
    phases=[Phase.generate],  # a sleep that nobody ends takes long, and comes another time with other numbers
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    bringers=st.integers(1, 4),
    items=st.integers(1, 200),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 1e-5, 2e-4]), min_size=1, max_size=7),
)
def test_no_work_is_missed_whatever_the_order_of_the_steps(
    quick_switches: None, bringers: int, items: int, pauses: list[float]
) -> None:
    """Threads bring work now close together, now one by one; the sleeper, which has no time limit, gets it all."""
    bell = Doorbell()
    work: deque[int] = deque()
    done: list[int] = []

    def bring(first: int) -> None:
        for number in range(items):
            work.append(first + number)
            bell.ring()
            time.sleep(pauses[number % len(pauses)])

    def serve() -> None:
        while len(done) < bringers * items:
            bell.sleep(unless=work.__len__)
            while work:
                done.append(work.popleft())

    threads = [threading.Thread(target=bring, args=(items * one,), daemon=True) for one in range(bringers)]
    sleeper = threading.Thread(target=serve, daemon=True)
    for thread in (sleeper, *threads):
        thread.start()
    for thread in (*threads, sleeper):
        thread.join(20)
        assert not thread.is_alive(), f"{len(work)} left, {len(done)} done"
    assert sorted(done) == list(range(bringers * items))
