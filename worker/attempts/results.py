"""The results of actors: an awaitable that a function returned is run to its end, and a generator is refused.

Nothing that still has to run is taken for a result.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any, Protocol

from worker.errors import ReturnedGenerator

SETTLES = "settles_result"
"""The attribute of a function that settles its result itself."""


class Bridge(Protocol):
    """`run_async_in_new_loop` or `run_async_in_shared_loop`."""

    def __call__(self, work: Awaitable[Any], /) -> object:
        """Runs an awaitable to its end."""


def settled(returned: object, bridge: Bridge, name: str, *, awaited: bool = False) -> object:
    """The result of a function that has returned this.

    Args:
        returned: The returned value.
        bridge: The bridge that runs an awaitable.
        name: The function's name, for the error.
        awaited: Whether the function is async and was awaited: then its result is run only if it is a coroutine.

    Raises:
        ReturnedGenerator: It is a generator or an async generator: nobody would iterate it.
    """
    if returned is None:
        return None
    if not awaited and inspect.isawaitable(returned):
        returned = bridge(returned)
    while inspect.iscoroutine(returned):
        returned = bridge(returned)
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise ReturnedGenerator(name)
    return returned


async def settled_on_loop(returned: object, name: str) -> object:
    """The result of an async function that has returned this, as `settled` has it; a coroutine is awaited.

    Raises:
        ReturnedGenerator: It is a generator or an async generator: nobody would iterate it.
    """
    while inspect.iscoroutine(returned):
        returned = await returned
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise ReturnedGenerator(name)
    return returned
