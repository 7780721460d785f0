"""What a call with a wrong value says: one line that names the value and the remedy. Nothing is sent."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import worker
from worker import (
    Broker,
    ProcessingStatusContext,
    RetryLater,
    Settings,
    actor,
    create_broker,
    lease,
    loop_resource,
    run_async_in_new_loop,
    run_async_in_shared_loop,
    run_in_thread_pool,
)
from worker.errors import ConfigurationError, WorkerError
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import actor_rates, audit_log
from worker.history.query import one_message, page_of_messages
from worker.operations.actions import cancel, pause, preview
from worker.server.client import RedisClient
from worker.testing import StubWorker, recorded_events, stub_broker

FOREIGN: dict[str, Any] = {
    "None": None,
    "text": "abc",
    "empty": "",
    "bytes": b"x",
    "negative": -1,
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 10**400,
    "fraction": 1.5,
    "true": True,
    "list": [1],
    "dictionary": {1: 2},
    "coroutine function": None,  # made below
    "object": object(),
    "negative time": timedelta(seconds=-1),
}


async def coroutine_function() -> None: ...


FOREIGN["coroutine function"] = coroutine_function

ALL = set(FOREIGN)

OURS = Path(worker.__file__).parent


def declared() -> Any:
    """An actor with one argument, as a program without types sees it."""

    @actor(max_retries=0)
    def note(number: object) -> None: ...

    return note


Call = Callable[[Any], object]

in_words: Any = "10m"

LINES: dict[str, tuple[Call, str]] = {
    "send_many of numbers": (lambda a: a.send_many([1]), "1 is no message: make one with `actor.message(…)`"),
    "send_many of None": (lambda a: a.send_many([None]), "None is no message: make one"),
    "send_many of nothing": (lambda a: a.send_many(None), "None: write a list of messages, such as [actor.message(id)"),
    "send_many of one": (lambda a: a.send_many(a.message(1)), "Message(queue_name="),
    "configured send_many": (lambda a: a.configure(priority=1).send_many([1]), "1 is no message"),
    "arguments as a text": (lambda a: a.send_with_options(args="abc"), "args='abc': write a tuple of arguments"),
    "arguments as a number": (lambda a: a.send_with_options(args=1), "args=1: write a tuple of arguments, such as (42"),
    "named arguments as a list": (
        lambda a: a.send_with_options(kwargs=[1]),
        "kwargs=[1]: write a dictionary of arguments",
    ),
    "throws of a message": (
        lambda a: a.send_with_options(args=(1,), throws="KeyError"),
        "throws='KeyError': write an error's class",
    ),
    "retries of a message": (
        lambda a: a.send_with_options(args=(1,), max_retries="3"),
        "max_retries='3': write a whole number, or None",
    ),
    "backoff of a message": (
        lambda a: a.send_with_options(args=(1,), min_backoff="5s"),
        "min_backoff='5s': write milliseconds, such as 10_000; @actor and configure take '10s' too",
    ),
    "limit of a message": (
        lambda a: a.send_with_options(args=(1,), time_limit=timedelta(seconds=5)),
        "time_limit=datetime.timedelta(seconds=5): write milliseconds",
    ),
    "infinite delay": (
        lambda a: a.send_with_options(args=(1,), delay=math.inf),
        "delay=inf: write milliseconds, such as 10_000; `configure(delay=…)` takes a timedelta, '10m' and math.inf too",
    ),
    "delay as a text": (lambda a: a.send_with_options(args=(1,), delay="10m"), "delay='10m': write milliseconds"),
    "id as a number": (lambda a: a.configure(message_id=7), "message_id=7: write a text, such as 'order-7'"),
    "later in words": (lambda a: RetryLater(in_words), "RetryLater(delay='10m'): write seconds, such as 30, or a"),
    "callback as an actor": (
        lambda a: actor(actor_name="other", on_success=a)(print),
        "on_success=Actor(note): write its name, 'note'",
    ),
    "loop of a message": (lambda a: a.configure(loop="new"), "configure(): loop is an option of actors: give it to @"),
    "name of a message": (lambda a: a.configure(actor_name="x"), "configure(): actor_name is an option of actors"),
    "aliases of a message": (lambda a: a.configure(aliases=("x",)), "configure(): aliases is an option of actors"),
    "unknown callback": (
        lambda a: a.configure(on_success="nosuch"),
        "on_success='nosuch': this program has no actor of that name: import the module that declares it, or use",
    ),
    "misspelt callback": (
        lambda a: a.configure(on_failure="notes"),
        "on_failure='notes': this program has no actor of that name: did you mean note?",
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_a_wrong_call_is_refused_in_a_line_that_tells_what_to_write(stub: StubWorker, case: str) -> None:
    """It names the option and the value; nothing is enqueued, and the worker goes on."""
    call, line = LINES[case]
    sends = declared()
    with pytest.raises((TypeError, ValueError)) as caught:
        call(sends)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    sends.send(1)
    stub.join()
    assert stub.states() == ["started", "completed"]


def in_a_context(value: Any, way: str) -> None:
    """Records a value that a program gives, in one of the ways."""
    with ProcessingStatusContext("works", value if way == "message" else "") as status:
        status._span._progress_at = -math.inf
        if way == "text":
            status.set_exit_message(value)
        elif way == "progress":
            status.progress(value, value, value)


TAKEN: dict[str, tuple[Call, set[str]]] = {
    "RetryLater": (RetryLater, {"fraction", "true"}),
    "lease": (lease, {"text"}),
    "loop_resource": (loop_resource, set()),
    "run_async_in_new_loop": (run_async_in_new_loop, {"coroutine function"}),
    "run_async_in_shared_loop": (run_async_in_shared_loop, {"coroutine function"}),
    "run_in_thread_pool": (lambda value: asyncio.run(run_in_thread_pool(value)), set()),
    "timeout": (
        lambda value: run_async_in_new_loop(coroutine_function, timeout=value),
        {"None", "negative", "infinite", "fraction", "negative time"},
    ),
    "settings of a broker": (create_broker, {"None"}),
    "middleware": (lambda value: create_broker(middleware=value), {"empty"}),
    "one middleware": (lambda value: create_broker(middleware=[value]), set()),
    "class of middleware": (lambda value: Broker(middleware=value), {"None", "empty"}),
    "url": (lambda value: Broker(url=value), {"None"}),
    "name of a context": (lambda value: ProcessingStatusContext(value), {"text"}),
    "message of a context": (lambda value: in_a_context(value, "message"), ALL),
    "text of a context": (lambda value: in_a_context(value, "text"), ALL),
    "progress of a context": (lambda value: in_a_context(value, "progress"), ALL),
    "actor": (lambda value: actor(value), {"None", "coroutine function"}),
    "states": (lambda value: MessageFilter(states=value), set()),
    "state of events": (lambda value: EventFilter(state=value), {"None"}),
    "actor of a filter": (lambda value: MessageFilter(actor=value), {"None", "text", "empty"}),
    "moment of a filter": (lambda value: EventFilter(since=value), {"None"}),
    "subject of a filter": (lambda value: MessageFilter(subject=value), {"dictionary"}),
    "filter of a page": (page_of_messages, set()),
    "limit of a page": (lambda value: page_of_messages(MessageFilter(), limit=value), set()),
    "cursor of a page": (lambda value: page_of_messages(MessageFilter(), cursor=value), {"None"}),
    "one message": (one_message, {"text", "empty"}),
    "limit of the audit log": (audit_log, set()),
    "time of rates": (actor_rates, set()),
    "arguments": (lambda value: declared().message_with_options(args=value), {"list"}),
    "named arguments": (lambda value: declared().message_with_options(kwargs=value), {"None", "dictionary"}),
    **{
        f"send_with_options({name}=…)": (
            lambda value, name=name: declared().send_with_options(args=(1,), **{name: value}),  # type: ignore[misc]
            taken,
        )
        for name, taken in {
            "delay": {"None", "negative", "huge", "fraction", "negative time"},
            "priority": {"negative", "huge"},
            "throws": {"None", "empty"},
            "on_failure": {"None", "text", "empty"},
            "max_retries": {"None", "negative", "huge", "fraction", "true", "infinite"},
            "min_backoff": {"negative", "fraction", "true", "infinite"},
            "time_limit": {"None", "negative", "fraction", "true", "infinite"},
        }.items()
    },
    **{
        f"configure({name}=…)": (lambda value, name=name: declared().configure(**{name: value}), taken)  # type: ignore[misc]
        for name, taken in {
            "key": {"None", "text"},
            "at": {"None"},
            "delay": {"None", "infinite"},
            "priority": {"None", "negative", "huge"},
            "queue_name": {"None", "text"},
            "message_id": {"None", "text"},
            "time_limit": {"None", "infinite"},
            "max_retries": {"None", "negative", "huge", "fraction", "true", "infinite"},
            "on_success": {"None"},
            "loop": set(),
        }.items()
    },
}


def error_of(call: Call, value: object) -> Exception | None:
    """The error with which a call refuses a value, or None."""
    try:
        call(value)
    except (TypeError, ValueError, WorkerError) as error:
        return error
    return None


@pytest.mark.parametrize("name", TAKEN)
def test_a_value_of_any_kind_is_taken_or_refused_in_one_line_of_ours(name: str) -> None:
    """Never by an error from somewhere within, and never by one that Python itself has for what it cannot do."""
    call, expected = TAKEN[name]
    taken = set()
    with stub_broker() as broker:
        for kind, value in FOREIGN.items():
            broker.actors.clear()
            error = error_of(call, value)
            if error is None:
                taken.add(kind)
                continue
            assert Path(traceback.extract_tb(error.__traceback__)[-1].filename).is_relative_to(OURS), (kind, error)
            assert (str(error).count("\n"), len(str(error)) < 300) == (0, True), kind
        broker.actors.clear()
    assert taken == expected


def test_a_broker_that_cannot_be_made_leaves_the_settings_as_they_were(stub: StubWorker) -> None:
    """A program that goes on does not have what it could not begin with."""
    before = Settings.in_force()
    with pytest.raises(WorkerError, match="WORKER_REDIS_URL=abc"):
        Broker(url="abc")
    assert Settings.in_force() is before


def test_what_is_no_number_is_left_out_of_progress(stub: StubWorker) -> None:
    """Recording never fails the work, and never keeps what the history could not show."""
    with recorded_events() as events, ProcessingStatusContext("works") as status:
        for done in (3, math.nan, "many", 10**400):
            status._span._progress_at = -math.inf
            status.progress(done, 4, "on")  # type: ignore[arg-type]
    assert [(one.done, one.total, one.text) for one in events if one.state == "progress"] == [
        (3, 4, "on"),
        *[(None, 4, "on")] * 3,
    ]


@pytest.mark.parametrize("wrong", [None, 5, [1], {1: 2}], ids=str)
def test_what_names_no_messages_is_refused_before_the_server_is_asked(wrong: Any) -> None:
    """By an action and by its preview, in a line that says what names some; a queue has a text as its name."""
    nobody: RedisClient = None  # type: ignore[assignment]
    for act in (lambda: cancel(nobody, wrong), lambda: preview(nobody, "cancel", wrong)):
        with pytest.raises(ConfigurationError, match=r"write a list of ids, or a MessageFilter\(…\)$"):
            act()
    with pytest.raises(ConfigurationError, match=r"^queue=.*: write a text$"):
        pause(nobody, wrong)
