"""Leases for tasks, on a real server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.attempts import attempt_run
from tests.support.brokers import stream_broker
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import lease
from worker.attempts.run import current_run
from worker.bridge import run_async_in_new_loop, run_in_thread_pool
from worker.broker.declaring import actor
from worker.broker.named_leases import LeaseStore, _ServerLeases, leases_kept_in
from worker.broker.streams import StreamBroker
from worker.errors import LeaseTaken
from worker.history.events import State
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.settings.groups import put_in_force

LEASE = 1.0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[Settings]:
    """Settings in force with leases of a second."""
    monkeypatch.chdir(tmp_path)
    own = Settings(
        data_dir=tmp_path / "data",
        lease=timedelta(seconds=LEASE),
        min_backoff=timedelta(milliseconds=10),
        max_backoff=timedelta(milliseconds=20),
        max_retries=1,
    )
    put_in_force(own)
    yield own
    put_in_force(None)


@pytest.fixture
def store(settings: Settings, valkey: EmbeddedServer) -> Iterator[LeaseStore]:
    """Leases on the test's own server."""
    made = _ServerLeases()
    with leases_kept_in(made):
        yield made


def as_message(message_id: str, fence: int = 1) -> None:
    """What runs in this thread from now on is an attempt of that message."""
    current_run.set(attempt_run(message_id, fence))


@pytest.fixture(autouse=True)
def no_attempt() -> Iterator[None]:
    """What a test set is gone after it."""
    yield
    current_run.set(None)


def test_one_has_it_at_a_time_and_it_is_free_afterwards(store: LeaseStore) -> None:
    """Also after an error."""
    with lease("merge:1"), lease("merge:2"), pytest.raises(LeaseTaken):
        lease("merge:1").__enter__()
    with pytest.raises(KeyError), lease("merge:1"):
        raise KeyError
    with lease("merge:1"):
        pass


def test_the_error_names_the_lease_and_the_message_that_has_it(store: LeaseStore) -> None:
    """That is what the event says."""
    as_message("m1")
    with lease("merge:1"):
        as_message("m2")
        with pytest.raises(LeaseTaken, match=r"waits for the lease 'merge:1', which message m1 has"):
            lease("merge:1").__enter__()


def test_a_message_enters_its_own_lease_again(store: LeaseStore) -> None:
    """In the same attempt, which gives it up once, at the end; and in its next one, if the first has died with it."""
    as_message("m1")
    with lease("merge:1"):
        with lease("merge:1"):
            pass
        as_message("m2")
        with pytest.raises(LeaseTaken):
            lease("merge:1").__enter__()
        as_message("m1", fence=2)
        with lease("merge:1"):
            as_message("m2")
            with pytest.raises(LeaseTaken):
                lease("merge:1").__enter__()


class Slow:
    """Leases on a server that takes its time."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self.entered = threading.Event()

    def acquire(self, name: str, owner: str, fence: int) -> str | None:
        """Takes it, and the answer is long on its way."""
        holder = self._store.acquire(name, owner, fence)
        self.entered.set()
        time.sleep(0.2)
        return holder

    def release(self, name: str, owner: str, fence: int) -> None:
        """Gives it up."""
        self._store.release(name, owner, fence)


def is_free(name: str) -> bool:
    try:
        with lease(name):
            return True
    except LeaseTaken:
        return False


@pytest.mark.parametrize("after", [0.0, 0.01, 0.1, 0.19, 0.2, 0.21])
def test_who_is_cancelled_while_it_enters_keeps_nothing(store: LeaseStore, after: float) -> None:
    """Whenever that is: nobody would release it, and it would be renewed for ever."""
    slow = Slow(store)

    async def enter() -> None:
        async with lease("merge:1"):
            await asyncio.sleep(10)

    async def cancelled() -> None:
        entering = asyncio.ensure_future(enter())
        await asyncio.to_thread(slow.entered.wait, 20)
        await asyncio.sleep(after)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering

    with leases_kept_in(slow):
        run_async_in_new_loop(cancelled)
    wait_until(lambda: is_free("merge:1"))


def test_who_is_cancelled_while_it_leaves_keeps_nothing(settings: Settings, store: LeaseStore) -> None:
    """Also where the pool has no thread for it, and the loop ends."""
    put_in_force(settings.model_copy(update={"thread_pool_size": 1}))
    busy, done = threading.Event(), threading.Event()

    def occupy() -> None:
        busy.set()
        done.wait(20)

    async def leave() -> None:
        async with lease("merge:1"):
            occupied = asyncio.ensure_future(run_in_thread_pool(occupy))
            await asyncio.to_thread(busy.wait, 20)
        await occupied

    async def cancelled() -> None:
        leaving = asyncio.ensure_future(leave())
        await asyncio.to_thread(busy.wait, 20)
        await asyncio.sleep(0.05)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        done.set()

    run_async_in_new_loop(cancelled)
    wait_until(lambda: is_free("merge:1"))


def test_an_older_attempt_neither_gets_nor_releases_what_a_newer_one_has(store: LeaseStore) -> None:
    """A process that was suspended goes on with an attempt of yesterday."""
    as_message("m1", fence=1)
    old = lease("merge:1")
    old.__enter__()
    as_message("m1", fence=2)
    with lease("merge:1"):
        old.__exit__(None, None, None)
        as_message("m2")
        with pytest.raises(LeaseTaken):
            lease("merge:1").__enter__()
        as_message("m1", fence=1)
        with pytest.raises(LeaseTaken):
            lease("merge:1").__enter__()


def test_it_is_renewed_while_it_is_held_and_expires_when_its_holder_dies(
    store: LeaseStore, client: RedisClient
) -> None:
    """A process that died renews nothing."""
    with lease("held"):
        assert store.acquire("left", "m9", 1) is None
        client.set("{worker}:lease:dead", "m8\t1", px=round(LEASE * 1000))
        before = time.monotonic()
        wait_until(lambda: not client.exists("{worker}:lease:dead"))
        wait_until(lambda: time.monotonic() - before > 1.5 * LEASE)
        assert client.exists("{worker}:lease:held")
        with lease("dead"):
            pass
    store.release("left", "m9", 1)


def test_async_code_gets_and_gives_it_up_without_blocking_its_loop(store: LeaseStore) -> None:
    """The server is asked in the thread pool; cancelled or not, the lease is given up."""

    async def service() -> None:
        async with lease("merge:1"):
            with pytest.raises(LeaseTaken):
                async with lease("merge:1"):
                    pytest.fail("had it twice")
            raise TimeoutError

    with pytest.raises(TimeoutError):
        run_async_in_new_loop(service)
    with lease("merge:1"):
        pass


@pytest.fixture
def broker(settings: Settings, store: LeaseStore) -> Iterator[StreamBroker]:
    """A broker with the usual settings."""
    with stream_broker(settings) as made:
        yield made


def test_who_does_not_get_it_is_retried_without_spending_its_budget(
    broker: StreamBroker, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: the budget here is one retry."""
    monkeypatch.setattr("worker.broker.named_leases.TRY_AGAIN", (0.01, 0.02))
    entered, leave = threading.Event(), threading.Event()

    @actor
    def first() -> None:
        with lease("one"):
            entered.set()
            leave.wait(30)

    @actor
    def second() -> None:
        with lease("one"):
            pass

    with working(broker):
        holder = first.send()
        assert entered.wait(30)
        waiting = second.send()
        wait_until(lambda: stored(client, waiting.message_id).attempts > 4)
        leave.set()
        broker.join("default", timeout=30_000)
    ended = stored(client, waiting.message_id)
    assert ended.state == "completed"
    ends = [event.state for event in ended.events if event.state.is_final]
    assert ends == [*[State.SNOOZED] * (len(ends) - 1), State.COMPLETED]
    snoozed = next(event for event in ended.events if event.state is State.SNOOZED)
    assert snoozed.event == "second.snoozed"
    assert snoozed.error is not None
    assert holder.message_id in snoozed.error.text
