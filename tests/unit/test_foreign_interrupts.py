"""Interrupts of others: what a plug-in raises in a worker's thread reaches the coroutine for which the thread waits."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import TimeLimitExceeded
from dramatiq.middleware.threading import Interrupt, raise_thread_exception

from tests.support.waiting import wait_until
from worker import actor
from worker.attempts.runs import Runs
from worker.bridge import run_async_in_shared_loop
from worker.testing import StubWorker, stub_worker

LOOPS = pytest.mark.parametrize("loop", ["new", "shared"])
SOON = 20.0


class Abort(Interrupt):
    """What a plug-in raises, as dramatiq-abort does."""


class TooLate(Exception):
    """What other code raises in a thread, which may catch it."""


class Abortable(dramatiq.Middleware):
    """Knows the thread of each attempt, as dramatiq-abort does."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.after: Callable[[], object] = bool

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self.threads.append(threading.get_ident())

    def after_process_message(self, broker: Broker, message: MessageProxy, **_: Any) -> None:
        self.after()


def end(stub: StubWorker) -> tuple[str, str]:
    """How the last attempt ended, and the type of its error."""
    event = list(stub.events)[-1]
    return str(event.state), event.error.type.rpartition(".")[2] if event.error is not None else ""


class Idle:
    """A coroutine that waits for ever, and cleans up."""

    def __init__(self) -> None:
        self.began, self.log = threading.Event(), list[str]()

    async def __call__(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.log.append("cleaned up")


def run_idle(stub: StubWorker, loop: Any, interrupt: Callable[[int], object]) -> Idle:
    """Runs a message that waits for ever, and interrupts it in its thread."""
    plug_in, idle = Abortable(), Idle()
    stub.broker.add_middleware(plug_in)

    @actor(loop=loop, max_retries=0)
    async def waits() -> None:
        await idle()

    waits.send()
    assert idle.began.wait(SOON)
    interrupt(plug_in.threads[0])
    stub.join(SOON)
    del stub.broker.actors["waits"]
    return idle


@LOOPS
def test_an_interrupt_of_a_plug_in_cancels_the_coroutine_which_cleans_up(loop: str) -> None:
    """It ends CANCELLED with that interrupt, and not failed when it has run to its end."""
    with stub_worker() as stub:
        idle = run_idle(stub, loop, lambda thread: raise_thread_exception(thread, Abort))
        assert idle.log == ["cleaned up"]
        assert end(stub) == ("cancelled", "Abort")


@LOOPS
def test_other_exceptions_reach_the_coroutine_too(loop: str) -> None:
    """Raised without Dramatiq's help; they are what the attempt failed with."""

    def interrupt(thread: int) -> None:
        count = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TooLate))
        assert count == 1

    with stub_worker() as stub:
        assert run_idle(stub, loop, interrupt).log == ["cleaned up"]
        assert end(stub) == ("failed", "TooLate")


def test_what_others_raise_and_the_actor_catches_is_not_its_one_interrupt() -> None:
    """The time limit comes all the same."""
    plug_in, idle = Abortable(), Idle()
    caught = []
    with stub_worker() as stub:
        stub.broker.add_middleware(plug_in)

        @actor(time_limit="500ms", max_retries=0)
        def catches() -> None:
            with contextlib.suppress(TooLate):
                run_async_in_shared_loop(idle)
            caught.append(True)
            while True:
                time.sleep(0.001)

        catches.send()
        assert idle.began.wait(SOON)
        raise_thread_exception(plug_in.threads[0], TooLate)
        stub.join(SOON)
        del stub.broker.actors["catches"]
        assert caught == [True]
        assert end(stub) == ("failed", TimeLimitExceeded.__name__)


def test_a_sync_actor_is_interrupted_as_ever() -> None:
    """When its thread next runs Python."""
    plug_in, began = Abortable(), threading.Event()
    with stub_worker() as stub:
        stub.broker.add_middleware(plug_in)

        @dramatiq.actor(max_retries=0)
        def works() -> None:
            began.set()
            while True:
                time.sleep(0.001)

        works.send()
        assert began.wait(SOON)
        raise_thread_exception(plug_in.threads[0], Abort)
        stub.join(SOON)
        del stub.broker.actors["works"]
        assert end(stub) == ("cancelled", "Abort")


@LOOPS
def test_an_interrupt_before_the_body_is_raised_when_it_begins_and_one_after_it_is_dropped(loop: Any) -> None:
    """Neither hits Dramatiq's own work in that thread, which runs the next message."""
    plug_in, runs = Abortable(), []

    class Early(dramatiq.Middleware):
        def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
            if message.args == ("early",):
                raise_thread_exception(threading.get_ident(), Abort)
                time.sleep(0)

    def late() -> None:
        raise_thread_exception(threading.get_ident(), Abort)
        time.sleep(0)

    with stub_worker(threads=1) as stub:
        stub.broker.add_middleware(Early(), after=Runs)
        stub.broker.add_middleware(plug_in)
        plug_in.after = late

        @actor(loop=loop, max_retries=0)
        async def notes(name: str) -> None:
            runs.append(name)

        early = notes.send("early").message_id
        second = notes.send("second").message_id
        third = notes.send("third").message_id
        wait_until(lambda: "completed" in stub.states(message_id=third), SOON)
        stub.join(SOON)
        del stub.broker.actors["notes"]
        assert stub.states(message_id=early)[-1] == "cancelled"
        assert stub.states(message_id=second) == stub.states(message_id=third) == ["started", "completed"]
    assert runs == ["second", "third"]


def test_a_thread_without_an_attempt_is_left_alone() -> None:
    """What is raised in it is raised, also while workers run; after that, the function is Python's own."""
    caught = threading.Event()
    began = threading.Event()

    def work() -> None:
        with contextlib.suppress(Abort):
            began.set()
            while True:
                time.sleep(0.001)
        caught.set()

    own = ctypes.pythonapi.PyThreadState_SetAsyncExc
    with stub_worker():
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert began.wait(SOON)
        assert thread.ident is not None
        raise_thread_exception(thread.ident, Abort)
        assert caught.wait(SOON)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(0), ctypes.py_object(Abort)) == 0
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc is own
