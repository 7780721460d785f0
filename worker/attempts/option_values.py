"""The values of options that decide the fate of a message; one of the wrong kind would fail only after an error.

It never judges a value that works, as Dramatiq's own middleware would take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import dramatiq

from worker.ground.texts import shown


def check_values(options: Mapping[str, object]) -> None:
    """Checks the options of an actor or a message, as Dramatiq's middleware reads them: times are milliseconds.

    Raises:
        TypeError: One has a value with which no attempt could end, or which nothing could read.
    """
    for name, value in options.items():
        check = _CHECKS.get(name)
        if check is not None:
            check(name, value)


def check_priority(priority: object) -> None:
    """Checks a priority.

    Raises:
        TypeError: It is no whole number.
    """
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise _refusal("priority", priority, "write a whole number; a lower one is more urgent, 0 is the default")


def _check_retries(name: str, value: object) -> None:
    if value is not None and not _is_number(value):
        raise _refusal(name, value, "write a whole number, or None for no limit")


def _check_time(name: str, value: object) -> None:
    if value is not None and (not _is_number(value) or (isinstance(value, int) and abs(value) > _LONGEST)):
        raise _refusal(name, value, "write milliseconds, such as 10_000; @actor and configure take '10s' too")


def _check_backoff(name: str, value: object) -> None:
    if value is None:
        raise _refusal(name, value, "leave it out, or write milliseconds, such as 10_000")
    _check_time(name, value)


def _check_function(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise _refusal(name, value, "write a function of the number of retries and the error")


def _check_throws(name: str, value: object) -> None:
    if not _can_be_caught(value or ()):
        raise _refusal(name, value, "write an error's class, or a tuple of classes")


def _check_callback(name: str, value: object) -> None:
    if isinstance(value, dramatiq.Actor):
        raise TypeError(f"{name}={value}: write its name, {value.actor_name!r}")
    if not isinstance(value, str | None):
        raise _refusal(name, value, "write the name of an actor, such as 'make_report'")


_CHECKS: dict[str, Callable[[str, object], None]] = {
    "max_retries": _check_retries,
    "retry_when": _check_function,
    "throws": _check_throws,
    **dict.fromkeys(("time_limit", "max_age", "result_ttl"), _check_time),
    **dict.fromkeys(("min_backoff", "max_backoff"), _check_backoff),
    **dict.fromkeys(("on_success", "on_failure", "on_retry_exhausted"), _check_callback),
}


_LONGEST = 2**63
"""Milliseconds beyond which Python cannot compute with a time."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value  # noqa: PLR0124 - not a number is not itself


def _can_be_caught(kinds: object) -> bool:
    if isinstance(kinds, tuple):
        return all(map(_can_be_caught, kinds))
    return isinstance(kinds, type)  # groups of errors have a class that is no error's


def _refusal(name: str, value: object, remedy: str) -> TypeError:
    return TypeError(f"{name}={shown(repr(value))}: {remedy}")
