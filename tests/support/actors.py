"""The actors of the worker processes: what they begin and finish, they note in the scene's ledger.

Each has the same body twice: as a coroutine on the shared loop, and on a worker thread, under a name that says so.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import psutil
from dramatiq.broker import Broker

from tests.support.runners import named
from worker import (
    Fatal,
    NoContentFound,
    ProcessingStatusContext,
    RetryLater,
    actor,
    create_broker,
    current_attempt,
    lease,
)
from worker.broker.streams import StreamBroker
from worker.server.keys import THREAD

FOLDER = Path(os.environ["FAULTS_FOLDER"])
NAME = os.environ["FAULTS_NAME"]


class Probe(dramatiq.Middleware):
    """Tells, several times a second, how the worker fares."""

    def after_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        assert isinstance(broker, StreamBroker)
        threading.Thread(target=watch, args=(broker,), name="probe", daemon=True).start()


def watch(broker: StreamBroker) -> None:
    file = FOLDER / f"probe-{NAME}"
    errors: list[str] = []
    while True:
        time.sleep(0.05)
        if (session := broker.session) is None:
            continue
        health = session.standing
        errors += [error for error in health.errors if error not in errors]
        threads = sorted(thread.name for thread in threading.enumerate() if "Dummy" not in thread.name)
        resident = psutil.Process().memory_info().rss
        told = {"pid": os.getpid(), "health": asdict(health), "errors": errors, "threads": threads, "rss": resident}
        new = file.with_suffix(".new")
        new.write_text(json.dumps(told))
        new.replace(file)


def note(what: str) -> None:
    attempt = current_attempt()
    assert attempt is not None
    line = [what, attempt.message_id, str(attempt.number), str(attempt.fence), NAME, str(time.monotonic())]
    with (FOLDER / "ledger").open("a") as ledger:
        ledger.write(" ".join(line) + "\n")


broker = create_broker()
broker.add_middleware(Probe())
dramatiq.set_broker(broker)


def on_both(**options: Any) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Declares an async function as two actors, one for each runner."""

    def declare(function: Callable[..., Awaitable[None]]) -> None:
        @functools.wraps(function)
        async def on_thread(*args: object) -> None:
            await function(*args)

        on_thread.__name__ = named(function.__name__, THREAD)
        actor(**options)(function)
        actor(loop="new", **options)(on_thread)

    return declare


@on_both()
async def work(ms: int = 0) -> None:
    note("began")
    await asyncio.sleep(ms / 1000)
    note("done")


@actor
def plain(seconds: float) -> None:
    """A sync actor."""
    note("began")
    time.sleep(seconds)
    note("done")


@actor(concurrency=2)
async def few(ms: int) -> None:
    """Has a place of its own on the loop."""
    note("began")
    await asyncio.sleep(ms / 1000)
    note("done")


@on_both()
async def blocks(seconds: float) -> None:
    """Blocks its loop."""
    note("began")
    time.sleep(seconds)  # noqa: ASYNC251 - that is what it is for
    note("done")


@on_both(max_retries=1)
async def fails() -> None:
    note("began")
    raise ValueError("always")


@on_both()
async def mixed(outcome: str, ms: int = 0) -> None:
    """Completes, is skipped, fails once, asks once for a later time, or fails for good."""
    note("began")
    await asyncio.sleep(ms / 1000)
    attempt = current_attempt()
    assert attempt is not None
    if outcome == "skipped":
        raise NoContentFound("nothing there")
    if outcome == "dead":
        raise Fatal("it never works")
    if outcome == "retried" and attempt.number == 1:
        raise ValueError("the first attempt")
    if outcome == "snoozed" and attempt.number == 1:
        raise RetryLater(timedelta(milliseconds=ms), "the first attempt")
    note("done")


@on_both(max_retries=0)
async def exclusive(gate: str) -> None:
    """One at a time; has no retry to spend on waiting for its lease."""
    async with lease("exclusive"):
        note("began")
        while not (FOLDER / gate).exists():  # noqa: ASYNC110 - the gate is another process's
            await asyncio.sleep(0.01)
        note("done")


@on_both(max_retries=1)
async def long(then: str) -> None:
    """Waits in its first attempt until it is cancelled, and takes a while to clean up; later it completes or fails."""
    note("began")
    attempt = current_attempt()
    assert attempt is not None
    if attempt.number == 1:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            note("cleaned")
            raise
    if then == "fails":
        raise ValueError("always")
    note("done")


@dramatiq.actor
def reports(steps: int) -> None:
    """Tells of its progress, more often than is recorded."""
    with ProcessingStatusContext("reports") as status:
        note("began")
        for step in range(1, steps + 1):
            time.sleep(0.05)
            status.progress(step, steps)
        note("done")


@on_both()
async def kills() -> None:
    note("began")
    # Its STARTED is stored by then: otherwise nobody could know that it has begun.
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


@on_both()
async def gated(gate: str) -> None:
    note("began")
    while not (FOLDER / gate).exists():  # noqa: ASYNC110 - the gate is another process's
        await asyncio.sleep(0.01)
    note("done")


@on_both()
async def again(gate: str, rounds: int) -> None:
    """In its first attempt it enqueues itself once more, and waits."""
    attempt = current_attempt()
    assert attempt is not None
    if attempt.number == 1:
        own = broker.get_actor(attempt.actor)
        following = own.message(gate, rounds - 1).copy(message_id=attempt.message_id)
        await asyncio.to_thread(broker.enqueue, following)
    note(f"round-{rounds}")
    while not (FOLDER / gate).exists():  # noqa: ASYNC110 - the gate is another process's
        await asyncio.sleep(0.01)
    note("done")


@on_both(time_limit=timedelta(seconds=3))
async def limited() -> None:
    """Waits in its first attempt until its time is over."""
    note("began")
    attempt = current_attempt()
    assert attempt is not None
    if attempt.number == 1:
        try:
            await asyncio.sleep(600)
        finally:
            note("cleaned")
    note("done")


@on_both(at_most_once=True)
async def once(gate: str) -> None:
    note("began")
    while not (FOLDER / gate).exists():  # noqa: ASYNC110 - the gate is another process's
        await asyncio.sleep(0.01)
    note("done")


@on_both()
async def gated_failure(gate: str) -> None:
    """Fails in its first attempt, when the gate is open."""
    note("began")
    while not (FOLDER / gate).exists():  # noqa: ASYNC110 - the gate is another process's
        await asyncio.sleep(0.01)
    attempt = current_attempt()
    assert attempt is not None
    if attempt.number == 1:
        raise ValueError("the first attempt")
    note("done")


@on_both(queue_name="other")
async def elsewhere() -> None:
    note("began")
    note("done")
