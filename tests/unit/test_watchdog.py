"""What blocks a loop is found while it blocks, and told in the attempt's final event."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Literal

import pytest

from tests.support.loops import use_loops_of
from worker import actor, run_async_in_new_loop, run_in_thread_pool
from worker.bridge import run_async_in_shared_loop, stop_shared_loop
from worker.history.events import StatusEvent
from worker.loops import watchdog
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.testing import stub_worker


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def _short_threshold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = Settings.in_force()
    put_in_force(before.model_copy(update={"blocking_threshold": timedelta(milliseconds=30)}))
    monkeypatch.setattr(watchdog, "_watchdog", None)
    stop_shared_loop()
    use_loops_of(request.param)
    yield
    stop_shared_loop()
    use_loops_of("asyncio")
    put_in_force(before)


def blocks_here(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)


async def blocking_service() -> None:
    await asyncio.sleep(0.01)
    blocks_here(0.15)
    await asyncio.sleep(0.01)


async def patient_service() -> None:
    await asyncio.sleep(0.4)
    await run_in_thread_pool(blocks_here, 0.4)


def final_event(service: Callable[[], Any], loop: Literal["new", "shared"]) -> StatusEvent:
    with stub_worker(settings=Settings.in_force()) as stub:

        @actor(loop=loop, max_retries=0)
        async def watched() -> None:
            await service()

        watched.send()
        stub.join()
        del stub.broker.actors["watched"]
    return list(stub.events)[-1]


@pytest.mark.parametrize("loop", ["new", "shared"])
def test_the_final_event_says_how_long_the_loop_was_blocked_and_where(loop: Literal["new", "shared"]) -> None:
    """The innermost place that is nobody's library."""
    event = final_event(blocking_service, loop)
    assert event.state == "completed"
    assert event.blocked_ms is not None
    assert 90 < event.blocked_ms < 10_000
    assert event.blocked_at is not None
    assert "test_watchdog" in event.blocked_at
    assert event.blocked_at.endswith(" in blocks_here")


@pytest.mark.parametrize("loop", ["new", "shared"])
def test_the_final_event_says_when_the_loop_was_blocked(loop: Literal["new", "shared"]) -> None:
    """Between what came before the longest block and what came after it: so it is drawn in the span that blocked."""

    async def service() -> None:
        await asyncio.sleep(0.3)
        blocks_here(0.15)
        await asyncio.sleep(0.3)

    event = final_event(service, loop)
    assert event.longest_block_from_ms is not None
    assert event.longest_block_ms is not None
    assert event.blocked_ms is not None
    assert event.duration_ms is not None
    assert event.longest_block_from_ms > 290
    assert event.longest_block_ms <= event.blocked_ms
    assert event.longest_block_from_ms + event.longest_block_ms < event.duration_ms - 290


@pytest.mark.parametrize("loop", ["new", "shared"])
def test_waiting_and_the_thread_pool_do_not_count(loop: Literal["new", "shared"]) -> None:
    """Only what keeps the loop from turning does."""
    # A machine that is busy keeps it from turning for some tens of milliseconds.
    put_in_force(Settings.in_force().model_copy(update={"blocking_threshold": timedelta(milliseconds=300)}))
    event = final_event(patient_service, loop)
    assert event.state == "completed"
    assert event.blocked_ms is None
    assert event.blocked_at is None


def test_a_call_that_shares_the_loop_is_not_charged_with_what_blocked_it() -> None:
    """The attempt that blocks the loop is, and no other."""
    started = threading.Event()
    found: list[StatusEvent] = []

    async def innocent() -> None:
        started.set()
        await asyncio.sleep(0.2)

    thread = threading.Thread(target=lambda: found.append(final_event(innocent, "shared")))
    thread.start()
    assert started.wait(5)
    run_async_in_shared_loop(blocking_service)
    thread.join(10)
    [event] = found
    assert event.state == "completed"
    assert event.blocked_ms is None


def test_a_stall_is_charged_to_the_attempt_in_whose_task_it_was() -> None:
    """Also if the attempt ends with it, or made another task for it; each of two pays its own."""

    async def in_a_task() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(blocking_service())
            group.create_task(asyncio.sleep(0.3))

    async def at_the_end() -> None:
        await asyncio.sleep(0.01)
        blocks_here(0.3)

    for service in (in_a_task, at_the_end):
        event = final_event(service, "shared")
        assert event.blocked_ms is not None
        assert event.blocked_at is not None
        assert event.blocked_at.endswith(" in blocks_here")


def test_an_attempt_that_blocks_the_loop_for_longer_than_the_lease_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Its process may count as dead meanwhile, and the log says whose fault that is."""
    put_in_force(Settings.in_force().model_copy(update={"lease": timedelta(milliseconds=100)}))

    async def blocks_for_long() -> None:
        blocks_here(0.3)

    final_event(blocks_for_long, "shared")
    lines = [record.getMessage() for record in caplog.records if "shared loop is blocked" in record.getMessage()]
    assert any("watched" in line and "blocks_here" in line for line in lines)


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing watches, and nothing is told."""
    put_in_force(Settings.in_force().model_copy(update={"blocking": "off"}))
    assert final_event(blocking_service, "new").blocked_ms is None
    assert watchdog._watchdog is None


def test_with_error_the_blocking_call_itself_raises() -> None:
    """In development and in tests; in a process of its own here, since it lasts."""
    script = (
        "import asyncio, time\n"
        "from worker import run_async_in_new_loop, run_in_thread_pool\n"
        "from worker.bridge import run_async_in_shared_loop\n"
        "async def good():\n"
        "    await asyncio.sleep(0)\n"
        "    await run_in_thread_pool(time.sleep, 0.001)\n"
        "async def bad():\n"
        "    time.sleep(0.001)\n"
        "for run in (run_async_in_new_loop, run_async_in_shared_loop):\n"
        "    run(good)\n"
        "    try:\n"
        "        run(bad)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
    )
    environment = {"WORKER_BLOCKING": "error", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=30, check=False
    )
    assert (ended.stdout, ended.stderr) == (b"BlockingError\nBlockingError\n", b"")


def test_many_short_calls_leave_nothing_watched() -> None:
    """One entry a thread, however many loops it runs, and none when it has ended."""

    def work() -> None:
        for _ in range(50):
            run_async_in_new_loop(lambda: asyncio.sleep(0))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = watchdog._watchdog
    assert found is not None
    assert len(found.watched) <= 1
