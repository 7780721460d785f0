"""Loop resources: a client, an engine or a connection that lives exactly as long as its event loop.

A loop-bound client kept for longer than its loop is what makes "Event loop is closed"; one opened for each call is
slow. `@loop_resource` opens it once per loop, whoever asks first, and the bridge closes it when the loop ends.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar, cast

T = TypeVar("T")

ResourceFactory = Callable[[], AsyncIterator[T]] | Callable[[], AbstractAsyncContextManager[T]]


class _Generated(AbstractAsyncContextManager[T]):
    """A resource made by an async generator, which the loop does not know as one.

    A loop that ends closes the generators it knows before its resources, which they may use.
    """

    def __init__(self, generator: AsyncIterator[T]) -> None:
        self._generator = generator

    async def __aenter__(self) -> T:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            opened = anext(self._generator)
        finally:
            sys.set_asyncgen_hooks(*hooks)
        return await opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await anext(self._generator)
        except StopAsyncIteration:
            return
        raise RuntimeError("a loop resource yielded twice: yield once, and clean up after it")


class _Resources:
    """What is open on one loop: each opening is a future that concurrent askers share."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self.opened: dict[Callable[..., Any], asyncio.Future[Any]] = {}


_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Resources] = weakref.WeakKeyDictionary()


def loop_resource(factory: ResourceFactory[T]) -> Callable[[], Awaitable[T]]:
    """Makes `client = await name()` open a resource once per event loop.

    Decorates an async generator function that yields the resource once, or a function that returns an async context
    manager. Concurrent first asks share one opening; if it fails, all of them see its error and the next ask tries
    again. On loops of the bridge it is closed when the loop ends, in reverse order of opening; on a loop of
    somebody else (a web server's), `close_loop_resources` closes it.
    """
    enter = cast(
        "Callable[[], AbstractAsyncContextManager[T]]",
        (lambda: _Generated(factory())) if inspect.isasyncgenfunction(factory) else factory,
    )

    @functools.wraps(factory)
    async def ask() -> T:
        resources = _open.setdefault(asyncio.get_running_loop(), _Resources())
        opening = resources.opened.get(ask)
        if opening is None:
            # A task of its own: an asker who is cancelled must not take the opening from the others.
            opening = asyncio.ensure_future(resources.stack.enter_async_context(enter()))
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
        Exception: What the first closing to fail raised, after all were tried.
    """
    resources = _open.pop(asyncio.get_running_loop(), None)
    if resources is not None:
        await asyncio.gather(*resources.opened.values(), return_exceptions=True)
        await resources.stack.aclose()
