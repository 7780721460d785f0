"""Tells async functions from plain ones, also behind partials, wrappers and callable objects."""

from __future__ import annotations

import functools
import inspect


def is_async(function: object) -> bool:
    """Whether a call of the function makes a coroutine or an async generator."""
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in _code_of(function))


def makes_coroutine(function: object) -> bool:
    """Whether a call of the function certainly makes a coroutine.

    `inspect.iscoroutinefunction` misses partials and objects with an async `__call__`. A plain function that returns a
    coroutine cannot be recognised before it is called, and a plain wrapper around an async function may run it itself.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - we look at its code


def _code_of(function: object) -> tuple[object, object]:
    """The function behind partials and wrappers, and what a call of it calls."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__") and not inspect.iscoroutinefunction(function):
            function = function.__wrapped__
        else:
            break
    return function, getattr(function, "__call__", None)  # noqa: B004 - we look at its code
