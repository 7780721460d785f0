"""The values of options that decide the fate of a message; one of the wrong kind would fail only after an error.

It never judges a value that works, as Dramatiq's own middleware would take it.
"""

from __future__ import annotations

from collections.abc import Mapping


def check_values(options: Mapping[str, object]) -> None:
    """Checks the options `max_retries`, `retry_when` and `throws` of an actor or a message.

    Raises:
        TypeError: One has a value with which no attempt could end.
    """
    if not isinstance(retries := options.get("max_retries"), int | float | None):
        raise TypeError(f"max_retries={retries!r}: write a whole number, or None for no limit")
    if (chooses := options.get("retry_when")) is not None and not callable(chooses):
        raise TypeError(f"retry_when={chooses!r}: write a function of the number of retries and the error")
    if not _can_be_caught(throws := options.get("throws") or ()):
        raise TypeError(f"throws={throws!r}: write an error's class, or a tuple of classes")


def check_priority(priority: object) -> None:
    """Checks a priority.

    Raises:
        TypeError: It is no whole number.
    """
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"priority={priority!r}: write a whole number; a lower one is more urgent, 0 is the default")


def _can_be_caught(kinds: object) -> bool:
    if isinstance(kinds, tuple):
        return all(map(_can_be_caught, kinds))
    return isinstance(kinds, type)  # groups of errors have a class that is no error's
