"""What an actor's function returns: nothing that still has to run is taken for a result."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, Literal

import dramatiq
import pytest

from worker import NoContentFound, actor, current_attempt, run_async_in_new_loop
from worker.errors import ReturnedGenerator
from worker.testing import StubWorker, stub_worker

loops: list[asyncio.AbstractEventLoop] = []


@pytest.fixture
def stub() -> Iterator[StubWorker]:
    loops.clear()
    with stub_worker() as running:
        yield running
        running.broker.actors.clear()


def plainly_decorated(function: Callable[[], Any]) -> Callable[[], Any]:
    """As many decorators are written: sync, and without a trace of what they decorate."""

    def wrapper() -> Any:
        return function()

    return wrapper


async def service() -> str:
    """Notes its loop, and must be awaited."""
    await asyncio.sleep(0)
    loops.append(asyncio.get_running_loop())
    assert current_attempt() is not None
    return "done"


class AwaitableObject:
    """An awaitable that is no coroutine."""

    def __await__(self) -> Generator[Any, None, str]:
        return service().__await__()


async def returns_a_coroutine() -> Awaitable[str]:
    return service()


@pytest.mark.parametrize("loop", ["shared", "new"])
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(plainly_decorated(service), id="async behind a plain decorator"),
        pytest.param(lambda: service(), id="sync, returns a coroutine"),
        pytest.param(lambda: AwaitableObject(), id="sync, returns another awaitable"),
        pytest.param(returns_a_coroutine, id="async, returns a coroutine"),
        pytest.param(functools.partial(plainly_decorated(service)), id="a partial"),
    ],
)
def test_an_awaitable_result_is_run_on_the_actors_loop(
    stub: StubWorker, function: Callable[[], Any], loop: Literal["shared", "new"]
) -> None:
    """The attempt is COMPLETED when it has ended, and both messages share their loop, or each has its own."""

    def returns() -> Any:
        return function()

    declared = actor(loop=loop)(returns)
    declared.send()
    declared.send()
    stub.join()
    assert sorted(stub.states()) == ["completed", "completed", "started", "started"]
    assert len(loops) == 2
    assert (loops[0] is loops[1]) is (loop == "shared")


def test_what_an_awaitable_result_raises_decides(stub: StubWorker) -> None:
    """Inside the status context, like the error of an async function."""

    async def nothing() -> None:
        raise NoContentFound("nothing there")

    @actor(max_retries=0)
    def skips() -> Any:
        return nothing()

    skips.send()
    stub.join()
    assert [(event.event, event.text) for event in stub.events][-1] == ("skips.skipped", "nothing there")


def test_a_time_limit_reaches_an_awaitable_result(stub: StubWorker) -> None:
    """It is cancelled through its loop, and cleans up."""
    cleaned = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    @actor(max_retries=0, time_limit="50ms")
    def waits() -> Any:
        return endless()

    waits.send()
    stub.join()
    assert stub.states() == ["started", "failed"]
    assert cleaned == [True]


@pytest.mark.parametrize("run", [asyncio.run, run_async_in_new_loop, lambda coroutine: coroutine])
def test_a_decorator_may_run_an_async_function_itself(stub: StubWorker, run: Callable[[Any], Any]) -> None:
    """As those do that make a sync function of it, or leave it to the actor's loop."""
    ran = []

    def decorated(function: Callable[[int], Any]) -> Callable[[int], Any]:
        @functools.wraps(function)
        def inner(number: int) -> Any:
            return run(function(number))

        return inner

    @actor
    @decorated
    async def works(number: int) -> None:
        ran.append(number)

    works.send(7)
    stub.join()
    assert ran == [7]
    assert stub.states() == ["started", "completed"]


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


async def async_returns_a_generator() -> Iterator[int]:
    return generator()


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        pytest.param(plainly_decorated(generator), id="a generator behind a plain decorator"),
        pytest.param(plainly_decorated(async_generator), id="an async generator behind a plain decorator"),
        async_returns_a_generator,
    ],
)
@pytest.mark.parametrize("declare", ["actor", "dramatiq.actor"])
def test_a_generator_is_a_dead_letter_at_once(stub: StubWorker, function: Callable[[], Any], declare: str) -> None:
    """Nothing of it has run, nor ever would: the text says so, and what to do."""
    if declare == "dramatiq.actor" and asyncio.iscoroutinefunction(function):
        function = plainly_decorated(function)
    declared: Any = actor(function) if declare == "actor" else dramatiq.actor(broker=stub.broker)(function)
    declared.send()
    stub.join()
    assert stub.states() == ["started", "failed"]
    assert len(stub.dead_letters) == 1
    error = list(stub.events)[-1].error
    assert error is not None
    assert error.type == "worker.errors.ReturnedGenerator"
    assert error.text == (
        f"{declared.fn.__name__} returned a generator, which nobody iterates, so nothing has run: "
        "iterate it inside the actor, or return a list"
    )


@pytest.mark.parametrize("declare", [actor, dramatiq.actor], ids=["ours", "dramatiqs"])
def test_what_a_class_based_actor_returns_is_looked_at_too(stub: StubWorker, declare: Any) -> None:
    """Its coroutine is run, and its generator is a dead letter."""
    ran = []

    class Runs(dramatiq.GenericActor):
        class Meta:
            actor = declare

        async def perform(self, number: int) -> None:
            ran.append(number)

    class Yields(dramatiq.GenericActor):
        class Meta:
            actor = declare

        def perform(self) -> Iterator[int]:
            yield 1

    declared: list[Any] = [Runs, Yields]
    declared[0].send(7)
    stub.join()
    assert ran == [7]
    declared[1].send()
    stub.join()
    assert stub.states() == ["started", "completed", "started", "failed"]


@pytest.mark.parametrize("result", [iter([1, 2]), map(str, [1]), [1, 2], "text", 0])
def test_other_iterators_are_ordinary_results(stub: StubWorker, result: object) -> None:
    """They are returned as they are, also to a direct call."""

    @actor(max_retries=0)
    def returns() -> Any:
        return result

    returns.send()
    stub.join()
    assert stub.states() == ["started", "completed"]
    assert returns() is result


def test_an_awaitable_object_that_an_async_function_returns_is_its_result(stub: StubWorker) -> None:
    """Some clients return themselves when they are awaited: only a coroutine would be lost."""
    client = AwaitableObject()

    @actor
    async def returns_a_client() -> AwaitableObject:
        return client

    assert returns_a_client() is client
    assert loops == []


def test_a_plain_dramatiq_actor_that_returns_a_coroutine_runs_it(stub: StubWorker) -> None:
    """On the shared loop."""

    @dramatiq.actor(broker=stub.broker)
    def returns() -> Any:
        return service()

    returns.send()
    stub.join()
    assert stub.states() == ["started", "completed"]
    assert len(loops) == 1


def test_a_direct_call_of_a_generator_is_refused_too(stub: StubWorker) -> None:
    """In a script or a test, as in a worker."""
    with pytest.raises(ReturnedGenerator):
        actor(generator)()
