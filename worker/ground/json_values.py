"""Writes values as JSON, on the command line and over HTTP alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any


def to_json(value: object) -> Any:  # noqa: ANN401, PLR0911 - JSON, a kind of value a line
    """The value as JSON types.

    A dataclass becomes an object that always has all of its keys, with null for missing values. A time becomes text:
    ISO 8601, in UTC, with milliseconds and `Z`. Numbers that JSON does not have become null. A duration must be a
    number already, under a key with its unit. Any other value becomes its text.
    """
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    if isinstance(value, datetime):
        return iso(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, name)) for name in _names(type(value))}
    return str(value)


def compact(value: object) -> str:
    """The value as JSON text without blanks; lone surrogates are JSON's own escapes, so that UTF-8 can hold it."""
    return readable(json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":")))


@lru_cache(maxsize=100)
def _names(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - a dataclass
    return tuple(part.name for part in fields(kind))


def iso(moment: datetime) -> str:
    """The time as text: ISO 8601, in UTC, with milliseconds and `Z`."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def readable(text: str) -> str:
    """The text with escapes for lone surrogates, which Python makes from bytes that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
