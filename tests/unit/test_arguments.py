"""Arguments are checked where they are sent."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from worker import Sent, actor
from worker.broker.arguments import check_arguments
from worker.cli.actors import read_arguments
from worker.errors import ConfigurationError
from worker.operations.actors import enqueue
from worker.testing import StubWorker


def taking(function: Callable[..., Any]) -> dramatiq.Actor[..., Any]:
    return actor(function)


def plain(a: int, b: int, c: int = 3) -> None: ...


def by_name(a: int, *, name: str, other: str = "") -> None: ...


def only_by_place(a: int, /) -> None: ...


def anything(*args: object, **kwargs: object) -> None: ...


async def asynchronous(a: int) -> None: ...


def with_session(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def inner(*args: object) -> None:
        function("session", *args)

    return inner


@with_session
def in_session(session: str, a: int) -> None: ...


class Callable_:  # noqa: N801 - not typing's
    def __call__(self, a: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (plain, (1, 2), {}),
        (plain, (1, 2, 3), {}),
        (plain, (1,), {"b": 2}),
        (by_name, (1,), {"name": "x"}),
        (only_by_place, (1,), {}),
        (anything, (1, 2, 3), {"x": 1}),
        (asynchronous, (1,), {}),
        (in_session, (1,), {}),
        (functools.partial(plain, 1), (2,), {}),
    ],
)
def test_what_a_function_takes_is_sent(
    stub: StubWorker, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Also through a decorator that gives the function more than is sent, and whatever is async."""
    check_arguments(taking(function), args, kwargs)
    if not isinstance(function, functools.partial):
        stub.broker.actors.clear()
        check_arguments(dramatiq.actor(function), args, kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        (plain, (1, 2), {"zz": 4}, "got an unexpected keyword argument 'zz'"),
        (plain, (1,), {}, "missing a required argument: 'b'"),
        (plain, (1, 2, 3, 4), {}, "too many positional arguments"),
        (plain, (1, 2), {"a": 1}, "multiple values for argument 'a'"),
        (by_name, (1,), {}, "missing a required"),
        (only_by_place, (), {"a": 1}, "'a'"),
        (asynchronous, (), {}, "missing a required argument: 'a'"),
        (in_session, (), {"x": 1}, "got an unexpected keyword argument 'x'"),
        (Callable_(), (), {}, "missing a required argument: 'a'"),
    ],
)
def test_what_no_call_takes_is_refused_where_it_is_sent(
    stub: StubWorker, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    """As a `TypeError` that names the actor and the argument; nothing is enqueued."""
    one = taking(function)
    for send in (one.send, functools.partial(_with_options, one), functools.partial(_unique, one)):
        with pytest.raises(TypeError, match=f"^{one.actor_name}.*{text}"):
            send(*args, **kwargs)
    assert not stub.events
    assert all(queue.empty() for queue in stub.broker.queues.values())


@pytest.mark.parametrize("declare", [actor, dramatiq.actor], ids=["ours", "dramatiqs"])
def test_people_may_enqueue_what_a_decorator_makes_a_call_of(stub: StubWorker, declare: Any) -> None:
    """The function's own parameters are checked where they are those of the call."""
    ran: list[tuple[int, str]] = []

    def with_number(function: Callable[[int, str], None]) -> Callable[[str], None]:
        @functools.wraps(function)
        def inner(word: str) -> None:
            function(7, word)

        return inner

    def takes_both(number: int, word: str) -> None:
        ran.append((number, word))

    one = declare(with_number(takes_both))

    def passes_on(*args: int, **kwargs: int) -> None:
        plain(*args, **kwargs)

    through = declare(functools.wraps(plain)(passes_on))
    enqueue(one, ["word"], {})
    stub.join()
    assert ran == [(7, "word")]
    assert read_arguments(one, ["word"]) == ["word"]
    assert read_arguments(through, ["1", "2"]) == [1, 2]
    with pytest.raises(ConfigurationError, match="^takes_both.*too many"):
        enqueue(one, ["a", "b", "c"], {})
    with pytest.raises(ConfigurationError, match="^takes_both.*too many"):
        read_arguments(one, ["a", "b", "c"])


async def test_async_sends_check_too(stub: StubWorker) -> None:
    """`asend` raises the same."""

    @actor
    async def one(a: int) -> None: ...

    send: Callable[..., Any] = one.asend
    with pytest.raises(TypeError, match="one.*'zz'"):
        await send(1, zz=4)


def test_a_message_may_be_made_without_all_arguments(stub: StubWorker) -> None:
    """Pipelines add the result of the message before."""

    @actor
    def one(a: int, b: int) -> None: ...

    make: Callable[..., Any] = one.message
    assert make(1).args == (1,)


def test_an_answer_is_a_message_that_knows_whether_it_is_new(stub: StubWorker) -> None:
    """It equals the plain message, and can be copied, sent again, and made of its fields."""

    @actor
    def one(a: int) -> None: ...

    sent = one.send(1)
    assert isinstance(sent, Sent)
    assert isinstance(sent, dramatiq.Message)
    assert sent.is_new
    plain_message: dramatiq.Message[None] = dramatiq.Message(**sent.asdict())
    assert sent == plain_message
    assert plain_message == sent
    assert sent.copy(args=(2,)).args == (2,)
    assert [one.is_new for one in one.send_many([one.message(1), one.message(2)])] == [True, True]


def _with_options(one: dramatiq.Actor[..., Any], *args: object, **kwargs: object) -> object:
    return one.send_with_options(args=args, kwargs=kwargs)


def _unique(one: Any, *args: object, **kwargs: object) -> object:
    return one.send_unique(key="key", args=args, kwargs=kwargs)
