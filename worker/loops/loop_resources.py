"""Loop resources: a client, an engine or a connection that lives exactly as long as its event loop.

A loop-bound client kept for longer than its loop is what makes "Event loop is closed"; one opened for each call is
slow. `@loop_resource` opens it once per loop, whoever asks first, and the bridge closes it when the loop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
import types
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

T = TypeVar("T")

ResourceFactory = Callable[[], AsyncIterator[T]] | Callable[[], AbstractAsyncContextManager[T]]


class _Resources:
    """What is open on one loop: each opening is a future that concurrent askers share."""

    def __init__(self) -> None:
        self.opened: dict[Callable[..., Any], asyncio.Future[Any]] = {}
        self._managers: list[AbstractAsyncContextManager[Any]] = []

    async def open(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Opens a resource; what it opened first is closed last."""
        resource = await manager.__aenter__()
        self._managers.append(manager)
        return resource

    async def close(self) -> None:
        """Closes all of them, each as if no other's closing had failed; raises what the first failure raised."""
        failures: list[BaseException] = []
        while self._managers:
            try:
                await self._managers.pop().__aexit__(None, None, None)
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)
        if failures:
            raise failures[0]


@types.coroutine
def _unknown_to_the_loop(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Runs a coroutine; the loop does not learn of the async generators it begins, which are the resource's own.

    A loop that ends closes the generators it knows before its resources, which they may use.
    """
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None)
        try:
            waits_for = step(value)
        except StopIteration as ended:
            result: T = ended.value
            return result
        finally:
            sys.set_asyncgen_hooks(*hooks)
        try:
            value = yield waits_for
            step = coroutine.send
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's
            step, value = coroutine.throw, error


_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Resources] = weakref.WeakKeyDictionary()


def loop_resource(factory: ResourceFactory[T]) -> Callable[[], Awaitable[T]]:
    """Makes `client = await name()` open a resource once per event loop.

    Decorates an async generator function that yields the resource once, or a function that returns an async context
    manager. Concurrent first asks share one opening; if it fails, all of them see its error and the next ask tries
    again. On loops of the bridge it is closed when the loop ends, in reverse order of opening; on a loop of
    somebody else (a web server's), `close_loop_resources` closes it.
    """
    manager = cast(
        "Callable[[], AbstractAsyncContextManager[T]]",
        contextlib.asynccontextmanager(factory) if inspect.isasyncgenfunction(factory) else factory,
    )

    @functools.wraps(factory)
    async def ask() -> T:
        resources = _open.setdefault(asyncio.get_running_loop(), _Resources())
        opening = resources.opened.get(ask)
        if opening is None:
            # A task of its own: an asker who is cancelled must not take the opening from the others.
            opening = asyncio.ensure_future(_unknown_to_the_loop(resources.open(manager())))
            resources.opened[ask] = opening
            opening.add_done_callback(lambda done: _forget_failure(resources, ask, done))
        result: T = await asyncio.shield(opening)
        return result

    return ask


def _forget_failure(resources: _Resources, ask: Callable[..., Any], done: asyncio.Future[Any]) -> None:
    if done.cancelled() or done.exception() is not None:
        resources.opened.pop(ask, None)


def has_loop_resources(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a resource was opened on this loop."""
    return bool(_open) and loop in _open


async def close_loop_resources() -> None:
    """Closes what is open on the running loop, last opened first; all of it, even if closing one fails.

    Raises:
        BaseException: What the first closing to fail raised, after all were tried.
    """
    resources = _open.pop(asyncio.get_running_loop(), None)
    if resources is not None:
        await asyncio.gather(*resources.opened.values(), return_exceptions=True)
        await _unknown_to_the_loop(resources.close())
