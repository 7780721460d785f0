"""Checks the values with which a program asks. One of a wrong kind must never be told as an outage of the server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from worker.errors import ConfigurationError
from worker.ground.texts import shown

_MOST = 2**53
"""The greatest number that a script reads exactly."""


def check_number(name: str, value: object) -> None:
    """Checks a number of things, or a cursor.

    Raises:
        ConfigurationError: It is no whole number from 0.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise _refusal(name, value, "write a whole number from 0")


def check_text(name: str, value: object) -> None:
    """Checks a name or an id.

    Raises:
        ConfigurationError: It is no text.
    """
    if not isinstance(value, str):
        raise _refusal(name, value, "write a text")


def check_moment(name: str, value: object) -> None:
    """Checks a time.

    Raises:
        ConfigurationError: It is no `datetime`.
    """
    if not isinstance(value, datetime):
        raise _refusal(name, value, "write a datetime, such as datetime.now(UTC) - timedelta(hours=2)")


def check_span(name: str, value: object) -> None:
    """Checks the length of a time.

    Raises:
        ConfigurationError: It is no `timedelta`, or is negative.
    """
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise _refusal(name, value, "write a timedelta, such as timedelta(hours=2)")


def check_kind(value: object, kind: type) -> None:
    """Checks a filter.

    Raises:
        ConfigurationError: It is of another class.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{shown(repr(value))} is no filter: write {kind.__name__}(…)")


def check_conditions(*, texts: Mapping[str, object], moments: Mapping[str, object], subject: object) -> None:
    """Checks the conditions of a filter; None stands for no condition.

    Raises:
        ConfigurationError: One is of another kind.
    """
    for name, value in texts.items():
        if value is not None:
            check_text(name, value)
    for name, value in moments.items():
        if value is not None:
            check_moment(name, value)
    if not isinstance(subject, Mapping):
        raise _refusal("subject", subject, "write a dictionary, such as {'conversation_id': '42'}")


def _refusal(name: str, value: object, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={shown(repr(value))}: {remedy}")
