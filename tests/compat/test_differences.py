"""The table of the page on moving over: each row is a program that runs on Dramatiq's own broker and on ours.

A test returns what the program shows; the table says of both what that is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries
from dramatiq.middleware.current_message import CurrentMessage

from tests.compat.conftest import Brokers
from tests.docs.pages import ROOT
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working

Program = Callable[[dramatiq.Broker], object]

ROWS: dict[str, tuple[Program, object, object]] = {}
"""The programs by the first cells of their rows, with what each shows on Dramatiq's own broker and on ours."""


def row(name: str, *, dramatiqs: object, ours: object) -> Callable[[Program], Program]:
    """Registers the program of a row."""

    def register(program: Program) -> Program:
        ROWS[name] = program, dramatiqs, ours
        return program

    return register


@row("Two messages with one id", dramatiqs=[1, 2], ours=[1])
def two_with_one_id(broker: dramatiq.Broker) -> object:
    ran: list[int] = []

    @dramatiq.actor
    def note(number: int) -> None:
        ran.append(number)

    for number in (1, 2):
        broker.enqueue(note.message(number).copy(message_id="order-7"))
    with working(broker, threads=1) as worker:
        broker.join("default", timeout=20_000)
        worker.join()
    return sorted(ran)


@row("Priorities", dramatiqs=1, ours=3)
def priorities(broker: Any) -> object:
    for priority in (-7, -1, 0, 1, 9):

        def note() -> None: ...

        dramatiq.actor(actor_name=f"note_{priority}", priority=priority)(note).send()
    kind = "list" if isinstance(broker, RedisBroker) else "stream"
    return sum(1 for key in broker.client.scan_iter(_type=kind) if b"default" in key)


@row("A shutdown that interrupts an attempt", dramatiqs=1, ours=None)
def a_shutdown(broker: dramatiq.Broker) -> object:
    broker.add_middleware(CurrentMessage())
    seen: list[Any] = []

    @dramatiq.actor(notify_shutdown=True, max_retries=5)
    def note() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen.append(message.options.get("retries"))
        while len(seen) == 1:
            time.sleep(0.01)

    with working(broker):
        note.send()
        wait_until(lambda: len(seen) == 1)
    with working(broker):
        wait_until(lambda: len(seen) == 2)
    return seen[1]


@row("Arguments that the function does not take", dramatiqs="sent", ours="TypeError")
def wrong_arguments(broker: dramatiq.Broker) -> object:
    @dramatiq.actor
    def note(number: int) -> None: ...

    try:
        note.send_with_options(args=(1, 2))
    except TypeError:
        return "TypeError"
    return "sent"


@row("A message for an actor that the worker does not know", dramatiqs="dead", ours="delayed")
def unknown_actor(broker: Any) -> object:
    @dramatiq.actor
    def note() -> None: ...

    sent = broker.enqueue(note.message().copy(actor_name="elsewhere"))
    with working(broker):
        if isinstance(broker, RedisBroker):
            wait_until(lambda: broker.client.exists("dramatiq:default.XQ.msgs"))
            return "dead"
        wait_until(lambda: stored(broker.client, sent.message_id).waits_for != "")
    return stored(broker.client, sent.message_id).state


@row("A middleware of a kind that is there", dramatiqs=2, ours=1)
def second_middleware(broker: dramatiq.Broker) -> object:
    broker.add_middleware(Retries(max_retries=1))
    return sum(isinstance(one, Retries) for one in broker.middleware)


@row("`broker.consume` without a worker", dramatiqs="a consumer", ours="RuntimeError")
def consume(broker: dramatiq.Broker) -> object:
    broker.declare_queue("default")
    try:
        broker.consume("default").close()
    except RuntimeError as error:
        return type(error).__name__
    return "a consumer"


@row("A retry of a message whose lists the function has changed", dramatiqs=[[1, 0], [1, 0, 0]], ours=[[1, 0], [1, 0]])
def changed_lists(broker: dramatiq.Broker) -> object:
    seen: list[list[int]] = []

    @dramatiq.actor(max_retries=1)
    def note(numbers: list[int]) -> None:
        numbers.append(0)
        seen.append(list(numbers))
        if len(seen) == 1:
            raise ValueError("the first attempt")

    with working(broker):
        note.send([1])
        wait_until(lambda: len(seen) == 2)
    return seen


@row("The queue of a delayed message", dramatiqs="default.DQ", ours="default")
def delayed(broker: dramatiq.Broker) -> object:
    @dramatiq.actor
    def note() -> None: ...

    return note.send_with_options(delay=60_000).queue_name


@row("Retries of an actor that sets nothing", dramatiqs=20, ours=10)
def retries(broker: dramatiq.Broker) -> object:
    [found] = [one for one in broker.middleware if isinstance(one, Retries)]
    return found.max_retries


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_table_is_so(brokers: Brokers, name: str) -> None:
    """The same program shows the one on Dramatiq's own broker, and the other on ours."""
    program, dramatiqs, ours = ROWS[name]
    assert program(brokers.dramatiqs()) == dramatiqs
    assert program(brokers.ours()) == ours


def test_the_table_has_these_rows() -> None:
    """No difference is only told, and none is only tested."""
    page = (ROOT / "docs" / "how-to" / "move-from-dramatiqs-broker.md").read_text(encoding="utf-8")
    table = page.partition("## What differs on purpose")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (?!\| |-)([^|]+?) \|", table, re.MULTILINE)[1:] == list(ROWS)
