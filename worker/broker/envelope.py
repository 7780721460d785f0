"""How a message travels: Dramatiq's own fields, as one line of JSON, bounded in size and never pickled."""

from __future__ import annotations

import json
from typing import Any

import dramatiq

from worker.errors import MessageRefused

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_decode = json.JSONDecoder().decode


def encode(message: dramatiq.Message[Any], max_bytes: int) -> bytes:
    """The message as one line.

    Raises:
        MessageRefused: An argument or option is not plain JSON, or the whole is too large.
    """
    try:
        line = _encode(message.asdict()).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageRefused(
            f"a message for {message.actor_name} holds what JSON cannot ({error}): pass ids and plain values"
        ) from error
    if len(line) > max_bytes:
        raise MessageRefused(
            f"a message for {message.actor_name} has {len(line)} bytes, more than "
            f"WORKER_MAX_MESSAGE_BYTES={max_bytes}: store the data and pass its id"
        )
    return line


def decode(line: bytes) -> dramatiq.Message[Any]:
    """Reads what `encode` wrote.

    Raises:
        ValueError: It is no message.
    """
    try:
        return dramatiq.Message(**_decode(line.decode()))
    except TypeError as error:
        raise ValueError(f"not a message: {line!r:.200}") from error


def lane(priority: int) -> str:
    """The lane for Dramatiq's priority, in which less is more urgent and 0 is what everybody has."""
    if priority == 0:
        return "normal"
    return "high" if priority < 0 else "low"
