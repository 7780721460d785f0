"""What kind of function something is, seen through partials, wrappers and callable objects."""

from __future__ import annotations

import functools
import inspect


def is_async(function: object) -> bool:
    """Whether calling it makes a coroutine or an async generator.

    `inspect.iscoroutinefunction` misses partials of wrapped functions and objects with an async `__call__`. A plain
    function that returns a coroutine cannot be told before it is called.
    """
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__") and not inspect.iscoroutinefunction(function):
            function = function.__wrapped__
        else:
            break
    candidates = (function, getattr(function, "__call__", None))  # noqa: B004 - its code is what we ask about
    return any(inspect.iscoroutinefunction(c) or inspect.isasyncgenfunction(c) for c in candidates)
