"""How a message travels: Dramatiq's own fields, as one line of JSON, bounded in size and never pickled.

Nothing here asks the server or the broker anything.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import dramatiq

from worker.errors import MessageRefused

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_decode = json.JSONDecoder().decode

NOT_DELAYED = -1

_MAX_DELAY = 10_000_000_000_000
"""Milliseconds, three centuries: the longest time that a message is delayed."""

# What separates fields in records and notes, and the halves of characters, which no server takes.
_NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class Parcel(NamedTuple):
    """A message made ready for the server: what the scripts that enqueue are told of it, in their order.

    Attributes:
        message_id: Its id.
        payload: The message as one line.
        queue: Where it waits.
        lane: Before or behind whom.
        actor: Who runs it.
        delay_ms: For how long it is delayed; `NOT_DELAYED`.
        unique: What must not wait or run twice; empty: it may.
        ttl_ms: How long that holds.
    """

    message_id: str
    payload: bytes
    queue: str
    lane: str
    actor: str
    delay_ms: int = NOT_DELAYED
    unique: str = ""
    ttl_ms: int = 0


def pack(message: dramatiq.Message[Any], max_bytes: int, *, priority: int = 0, delay: float | None = None) -> Parcel:
    """Makes a message ready for the server.

    Args:
        message: The message.
        max_bytes: How large it may be.
        priority: Its actor's, as Dramatiq has it.
        delay: Milliseconds.

    Raises:
        MessageRefused: An argument or option is not plain JSON, or the whole is too large.
    """
    return Parcel(
        message.message_id,
        encode(message, max_bytes),
        message.queue_name,
        lane(priority),
        message.actor_name,
        # Dramatiq makes a fraction of a `timedelta`.
        NOT_DELAYED if delay is None else max(0, round(min(delay, _MAX_DELAY))),
    )


def encode(message: dramatiq.Message[Any], max_bytes: int) -> bytes:
    """The message as one line.

    Raises:
        MessageRefused: An argument or option is not plain JSON, or the whole is too large.
    """
    try:
        line = _encode(
            {
                "queue_name": message.queue_name,
                "actor_name": message.actor_name,
                "args": message.args,
                "kwargs": message.kwargs,
                "options": message.options,
                "message_id": message.message_id,
                "message_timestamp": message.message_timestamp,
            }
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageRefused(
            f"a message for {message.actor_name} holds what JSON cannot ({error}): pass ids and plain values"
        ) from error
    _check_names(message, MessageRefused)
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
        message: dramatiq.Message[Any] = dramatiq.Message(**_decode(line.decode()))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not a message: {line!r:.200}") from error
    if not isinstance(message.kwargs, dict) or not isinstance(message.options, dict):
        raise ValueError(f"not a message: {line!r:.200}")  # noqa: TRY004 - what is read is bad, not our code
    _check_names(message, ValueError)
    return message


def _check_names(message: dramatiq.Message[Any], refusal: type[Exception]) -> None:
    """They become fields and parts of keys.

    Raises:
        refusal: One of them is no text, or holds what separates the fields.
    """
    names = message.message_id, message.queue_name, message.actor_name, message.options.get("unique") or ""
    try:
        bad = _NOT_IN_NAMES.search("".join(names))
    except TypeError as error:
        raise refusal(f"names of a message must be text: {names!r:.200}") from error
    if bad:
        raise refusal(f"names of a message must not hold {bad[0]!r}: {names!r:.200}")


def lane(priority: int) -> str:
    """The lane for Dramatiq's priority, in which less is more urgent and 0 is what everybody has."""
    if priority == 0:
        return "normal"
    return "high" if priority < 0 else "low"
