"""The options of `@actor`: those of `dramatiq.actor`, under its names, and its times."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, assert_type

import dramatiq
import pytest
from dramatiq.middleware import Middleware
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from worker import Sent, actor
from worker.broker.actor import Actor
from worker.broker.times import FOREVER_MS, TIMES
from worker.testing import StubWorker

OF_DRAMATIQ: dict[str, Any] = {
    "max_age": timedelta(hours=1),
    "time_limit": "10m",
    "max_retries": 3,
    "min_backoff": timedelta(seconds=1),
    "max_backoff": "1h 30m",
    "retry_when": lambda retries, error: False,
    "throws": (KeyError,),
    "on_retry_exhausted": "other",
    "on_failure": "other",
    "on_success": "other",
    "notify_shutdown": True,
    "pipe_ignore": True,
    "pipe_target": None,
    "store_results": True,
    "result_ttl": "1d",
}


class Abortable(Middleware):
    """A middleware of a third party, with an option of its own."""

    @property
    def actor_options(self) -> set[str]:
        """Its option."""
        return {"abortable"}


@pytest.mark.parametrize("is_async", [True, False])
def test_every_option_of_dramatiqs_actor_is_taken_under_its_name(stub: StubWorker, is_async: bool) -> None:
    """Also those of added middleware, and of third parties; times are milliseconds for the middleware."""
    stub.broker.add_middleware(Results(backend=StubBackend()))
    stub.broker.add_middleware(Abortable())
    assert set(OF_DRAMATIQ) | {"at_most_once", "abortable"} >= stub.broker.actor_options - {"concurrency", "subject"}

    def sync(number: int) -> None: ...

    async def coroutine(number: int) -> None: ...

    function: Callable[..., Any] = coroutine if is_async else sync
    declared = actor(queue_name="slow", priority=5, actor_name="mine", abortable=False, **OF_DRAMATIQ)(function)
    assert (declared.queue_name, declared.priority, declared.actor_name) == ("slow", 5, "mine")
    times = {"time_limit": 600_000, "max_age": 3_600_000, "min_backoff": 1_000, "max_backoff": 5_400_000}
    expected = {**OF_DRAMATIQ, **times, "result_ttl": 86_400_000, "abortable": False}
    del expected["throws"]
    assert {name: declared.options[name] for name in expected} == expected
    assert KeyError in declared.options["throws"]


def test_the_events_of_an_actor_bear_its_name(stub: StubWorker) -> None:
    """Which may be another than its function's."""

    @actor(actor_name="welcome")
    async def function() -> None: ...

    function.send()
    stub.join()
    assert [event.event for event in stub.events] == ["welcome.started", "welcome.completed"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("abortable", "@actor: no middleware of the broker knows the option 'abortable': add the middleware"),
        ("tme_limit", "@actor: no middleware of the broker knows the option 'tme_limit': did you mean time_limit?"),
        ("queue", "@actor: no middleware of the broker knows the option 'queue': did you mean queue_name?"),
        ("retries", "@actor: no middleware of the broker knows the option 'retries': did you mean max_retries?"),
        ("delay", "@actor: delay is an option of messages: write actor.configure(delay=…).send(…)"),
        ("key", "@actor: key is an option of messages: write actor.configure(key=…).send(…)"),
    ],
)
def test_an_option_that_no_middleware_knows_is_refused(stub: StubWorker, name: str, line: str) -> None:
    """The line names it and the nearest one, or the place where it belongs."""
    option: Any = {name: "1s"}
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        actor(**option)(print)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("max_retries", "3", "max_retries='3': write a whole number, or None for no limit"),
        ("retry_when", 3, "retry_when=3: write a function of the number of retries and the error"),
        ("throws", "KeyError", "throws='KeyError': write an error's class, or a tuple of classes"),
        ("throws", (KeyError, "x"), "throws=(<class 'KeyError'>, 'x'): write an error's class, or a tuple of classes"),
        ("throws", [KeyError], "throws=[<class 'KeyError'>]: write an error's class, or a tuple of classes"),
    ],
)
def test_a_value_with_which_no_attempt_could_end_is_refused(
    stub: StubWorker, name: str, value: object, line: str
) -> None:
    """It would come out only after an error, and hide that; so for `@actor` as for Dramatiq's own decorator."""
    before = dict(stub.broker.actors)
    for decorator in (actor, dramatiq.actor):
        with pytest.raises(TypeError, match=f"^{re.escape(line)}"):
            decorator(**{name: value})(print)  # type: ignore[call-overload]
    assert stub.broker.actors == before


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("queue_name", None, "queue_name=None: write a text, such as 'network'"),
        ("queue_name", "a b", "queue_name='a b': begin with a letter or an underscore"),
        ("actor_name", "", "actor_name='': write a text, such as 'make_report'"),
        ("actor_name", 3, "actor_name=3: write a text, such as 'make_report'"),
        ("aliases", ("", "old"), "aliases=('', 'old') of print: write a tuple, such as ('old_name',)"),
        ("aliases", (3,), "aliases=(3,) of print: write a tuple, such as ('old_name',)"),
        ("broker", 3, "broker=3: write a dramatiq.Broker, or None for the program's"),
        ("actor_class", 3, "actor_class=3: write a subclass of worker.broker.actor.Actor"),
        ("concurrency", "3", "concurrency='3': write a number from 1"),
    ],
)
def test_a_name_or_an_object_of_the_wrong_kind_is_refused(
    stub: StubWorker, name: str, value: object, line: str
) -> None:
    """In a line that names the option, the value and what to write."""
    option: Any = {name: value}
    before = dict(stub.broker.actors)
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(line)}"):
        actor(**option)(print)
    assert stub.broker.actors == before


@pytest.mark.parametrize("priority", ["high", 1.5, None, True])
def test_a_priority_that_is_no_whole_number_is_refused(stub: StubWorker, priority: Any) -> None:
    """By `@actor` as by `configure`: else the first send would raise."""
    with pytest.raises(TypeError, match=r"^priority=.*: write a whole number"):
        actor(priority=priority)(print)
    with pytest.raises(TypeError, match=r"^max_retries='3': write a whole number"):
        actor(actor_name="ours")(print).configure(max_retries="3")  # type: ignore[arg-type]


def test_an_actor_may_be_declared_on_a_broker_of_its_own(stub: StubWorker) -> None:
    """As in Dramatiq."""
    broker = type(stub.broker)(middleware=[])
    declared = actor(broker=broker, actor_name="elsewhere")(print)
    assert broker.actors == {"elsewhere": declared}
    assert "elsewhere" not in stub.broker.actors


def test_an_actor_may_have_a_class_of_its_own(stub: StubWorker) -> None:
    """A subclass of ours; one without our methods is refused."""

    class Mine(Actor[..., object]):
        pass

    assert isinstance(actor(actor_class=Mine, actor_name="mine")(print), Mine)
    with pytest.raises(TypeError, match=r"write a subclass of worker\.broker\.actor\.Actor"):
        actor(actor_class=dramatiq.Actor)(print)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (60_000, 'write timedelta(seconds=60) or "60s" if milliseconds were meant, "16h40m" if seconds'),
        ("60000", 'write timedelta(seconds=60) or "60s" if milliseconds were meant, "16h40m" if seconds'),
        (1_500, 'write timedelta(milliseconds=1500) or "1500ms" if milliseconds were meant, "25m" if seconds'),
        (0.5, 'write timedelta(milliseconds=0.5) or "0.5ms" if milliseconds were meant, "500ms" if seconds'),
        (90_061, 'write timedelta(milliseconds=90061) or "90061ms" if milliseconds were meant, "1d1h1m1s" if seconds'),
        (True, "write a timedelta, a text such as '10m', math.inf, or None"),
        (-1, "write a timedelta, a text such as '10m', math.inf, or None"),
        (math.nan, "write a timedelta, a text such as '10m', math.inf, or None"),
        (10**400, "write a timedelta, a text such as '10m', math.inf, or None"),
        ([], "write a timedelta, a text such as '10m', math.inf, or None"),
    ],
)
def test_a_bare_number_is_refused_as_a_time_in_a_line_with_both_readings(
    stub: StubWorker, given: Any, line: str
) -> None:
    """Copied from Dramatiq it would be a thousand times as long, without a complaint."""
    for name in ("time_limit", "max_age", "min_backoff", "max_backoff"):
        with pytest.raises(TypeError) as caught:
            actor(**{name: given})(print)
        assert str(caught.value).startswith(f"{name}=")
        assert str(caught.value).endswith(line)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["soon", "", timedelta(seconds=-1)])
def test_what_is_no_time_is_refused(stub: StubWorker, given: Any) -> None:
    """With how to write one."""
    with pytest.raises(ValueError, match="time_limit=.*write a time"):
        actor(time_limit=given)(print)


def test_infinity_and_none_are_times(stub: StubWorker) -> None:
    """Infinity is a century, which JSON can tell too; None is as it is without the option."""
    declared = actor(time_limit=math.inf, max_age=None, actor_name="one")(print)
    assert declared.options["time_limit"] == FOREVER_MS
    assert "max_age" not in declared.options
    assert {"time_limit", "max_age", "min_backoff", "max_backoff", "result_ttl", "delay"} == TIMES


def test_dramatiqs_own_decorator_stays_in_milliseconds(stub: StubWorker) -> None:
    """And `send_with_options` too."""
    plain = dramatiq.actor(broker=stub.broker, actor_name="plain", time_limit=60_000)(print)
    assert plain.options["time_limit"] == 60_000

    @actor(max_retries=0)
    def ours() -> None: ...

    assert ours.send_with_options(time_limit=60_000, delay=1).options["time_limit"] == 60_000
    stub.join()


def test_a_user_of_mypy_sees_the_types_of_arguments_and_results(stub: StubWorker) -> None:
    """Through `@actor` with and without options, and through `configure`."""

    @actor
    async def bare(number: int, *, name: str = "") -> str:
        return name

    @actor(max_retries=3, time_limit="1m", queue_name="slow")
    def optioned(number: int) -> bytes:
        return b""

    assert_type(bare.send(1, name="x"), Sent[str])
    assert_type(bare.configure(priority=1).send(1), Sent[str])
    assert_type(optioned.send(1), Sent[bytes])
    assert_type(optioned.configure(key="key").send_many([optioned.message(1)]), list[Sent[bytes]])
    with pytest.raises(TypeError):
        bare.send("x", names=1)  # type: ignore[arg-type, call-arg]
    with pytest.raises(TypeError):
        optioned.configure(priority=1).send()  # type: ignore[call-arg]
    stub.join()
