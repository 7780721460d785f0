"""Loop resources: a client, an engine or a connection that lives exactly as long as its event loop.

A client that outlives its loop fails with "Event loop is closed"; a client for each call is slow. `@loop_resource`
opens one per loop, at the first request, and the bridge closes it when the loop ends.
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

from worker.ground.texts import shown

T = TypeVar("T")

ResourceFactory = Callable[[], AsyncIterator[T]] | Callable[[], AbstractAsyncContextManager[T]]


class _Resources:
    """The open resources of one loop. Each opening is a future that concurrent callers share."""

    def __init__(self) -> None:
        self.opened: dict[Callable[..., Any], asyncio.Future[Any]] = {}
        self._managers: list[AbstractAsyncContextManager[Any]] = []

    async def open(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Opens a resource; resources that it opens itself are closed after it."""
        resource = await manager.__aenter__()
        self._managers.append(manager)
        return resource

    async def close(self) -> None:
        """Closes all resources, also if closing some of them fails; then raises the first error."""
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
    """Runs a coroutine and hides the async generators that it starts from the loop: they belong to the resource.

    A loop that ends closes its known generators first and its resources later, because the generators may use them.
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
        except BaseException as error:  # noqa: BLE001 - the coroutine gets it
            step, value = coroutine.throw, error


_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Resources] = weakref.WeakKeyDictionary()


def loop_resource(factory: ResourceFactory[T]) -> Callable[[], Awaitable[T]]:
    """Makes `client = await name()` open a resource once per event loop.

    It decorates an async generator function that yields the resource once, or a function that returns an async context
    manager. Concurrent first calls share one opening; if it fails, all of them get its error, and the next call tries
    again. The bridge closes the resources of its loops when the loop ends, in reverse order of opening. On other
    loops (a web server's), `close_loop_resources` closes them.

    Raises:
        TypeError: It decorates something else; also a function that is async and does not yield.
    """
    if not callable(factory) or inspect.iscoroutinefunction(factory):
        raise TypeError(
            f"@loop_resource: {shown(repr(factory))} is neither an async generator function, which yields the "
            "resource, nor a function that returns an async context manager"
        )
    manager = cast(
        "Callable[[], AbstractAsyncContextManager[T]]",
        contextlib.asynccontextmanager(factory) if inspect.isasyncgenfunction(factory) else factory,
    )

    @functools.wraps(factory)
    async def ask() -> T:
        resources = _open.setdefault(asyncio.get_running_loop(), _Resources())
        opening = resources.opened.get(ask)
        if opening is None:
            # A task of its own: a cancelled caller must not cancel the opening for the others.
            opening = asyncio.ensure_future(_unknown_to_the_loop(resources.open(manager())))
            resources.opened[ask] = opening
            opening.add_done_callback(lambda done: _forget_failure(resources, ask, done))
        try:
            result: T = await asyncio.shield(opening)
        finally:
            del opening  # it has an error whose traceback has this frame
        return result

    return ask


def _forget_failure(resources: _Resources, ask: Callable[..., Any], done: asyncio.Future[Any]) -> None:
    if done.cancelled() or done.exception() is not None:
        resources.opened.pop(ask, None)


def has_loop_resources(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a resource was opened on this loop."""
    return bool(_open) and loop in _open


async def close_loop_resources() -> None:
    """Closes all resources of the running loop, the last opened first, also if closing some of them fails.

    Raises:
        BaseException: The first error, raised after all were tried.
    """
    resources = _open.pop(asyncio.get_running_loop(), None)
    if resources is not None:
        await asyncio.gather(*resources.opened.values(), return_exceptions=True)
        await _unknown_to_the_loop(resources.close())
