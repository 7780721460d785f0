"""What the bridge does to the messages of actors: interrupts, loops that end, and who owns them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import timeit
from datetime import timedelta

import dramatiq
import pytest

from worker import actor, create_broker
from worker.attempts.shutdown import ShutdownNotifications
from worker.attempts.time_limit import TimeLimit
from worker.bridge import stop_shared_loop
from worker.loops.watchdog import Turns
from worker.settings import Settings
from worker.testing import stub_worker


def test_the_failed_event_names_a_coroutine_that_did_not_end_and_where_it_was() -> None:
    """Whoever reads the history sees why the attempt took longer than its limit."""
    quick = Settings.in_force().model_copy(update={"cleanup_timeout": timedelta(milliseconds=100)})
    with stub_worker(settings=quick) as stub:

        @actor(loop="new", time_limit="50ms", max_retries=0)
        async def stubborn() -> None:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)

        stubborn.send()
        stub.join()
        del stub.broker.actors["stubborn"]
    assert stub.states() == ["started", "failed"]
    error = list(stub.events)[-1].error
    assert error is not None
    assert error.type.endswith("TimeLimitExceeded")
    assert "did not end within 0.1 s of its cancellation" in error.traceback
    assert "in stubborn" in error.traceback


def test_a_message_whose_shared_loop_is_stopped_is_retried_on_the_next() -> None:
    """Its attempt fails with a typed error; it neither hangs nor is lost."""
    started = threading.Event()
    loops = []
    with stub_worker() as stub:

        @actor(max_retries=1)
        async def waits() -> None:
            loops.append(asyncio.get_running_loop())
            if len(loops) == 1:
                started.set()
                await asyncio.Event().wait()

        waits.send()
        assert started.wait(5)
        stop_shared_loop()
        stub.join()
        del stub.broker.actors["waits"]
    assert stub.states() == ["started", "failed", "started", "completed"]
    error = list(stub.events)[1].error
    assert error is not None
    assert error.type == "worker.errors.LoopClosedError"
    assert loops[0] is not loops[1]


@pytest.mark.usefixtures("settings")
def test_the_broker_interrupts_through_loops_and_not_as_dramatiq_does(settings: Settings) -> None:
    """`create_broker` puts our own middleware in the place of Dramatiq's."""
    kinds = {type(middleware) for middleware in create_broker(settings).middleware}
    assert kinds >= {TimeLimit, ShutdownNotifications}
    assert not kinds & {dramatiq.middleware.TimeLimit, dramatiq.middleware.ShutdownNotifications}


def test_watching_costs_a_call_at_most_a_microsecond() -> None:
    """What each call does for it: a turn that begins, one that follows, and the end of the last."""
    turns = Turns(0, 1.0)

    def watched_call() -> None:
        turns.begin()
        turns.next()
        turns.stop()

    # The least of many: what else the machine does only adds.
    assert min(timeit.repeat(watched_call, number=1_000, repeat=200)) / 1_000 < 1e-6
