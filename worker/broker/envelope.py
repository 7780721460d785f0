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
        priority: `high`, `normal` or `low`.
        actor: Who runs it.
        delay_ms: For how long it is delayed; `NOT_DELAYED`.
        unique: What must not wait or run twice; empty: it may.
        ttl_ms: How long that holds.
    """

    message_id: str
    payload: bytes
    queue: str
    priority: str
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
        priority_name(priority),
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
    if bad := _bad_name(message):
        raise MessageRefused(f"the {bad.name} of a message {bad.complaint}: {bad.value!r:.200}")
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
    # What it holds stays out of the error, which is shown to people who may not see arguments.
    size = f"{len(line)} bytes"
    try:
        fields = _decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a message: {size} that are no JSON") from error
    try:
        message: dramatiq.Message[Any] = dramatiq.Message(**fields)
    except TypeError as error:
        raise ValueError(f"not a message: {size} of JSON without the fields of one") from error
    if not isinstance(message.kwargs, dict) or not isinstance(message.options, dict):
        raise ValueError(f"not a message: {size} of JSON with bad kwargs or options")  # noqa: TRY004 - what is read is bad
    if bad := _bad_name(message):
        raise ValueError(f"not a message: {size} of JSON whose {bad.name} {bad.complaint}")
    return message


class _BadName(NamedTuple):
    name: str
    value: object
    complaint: str


def _bad_name(message: dramatiq.Message[Any]) -> _BadName | None:
    """What becomes a field or part of a key, and cannot."""
    for name, value in (
        ("message_id", message.message_id),
        ("queue_name", message.queue_name),
        ("actor_name", message.actor_name),
        ("unique", message.options.get("unique") or ""),
    ):
        if not isinstance(value, str):
            return _BadName(name, value, "is no text")
        if bad := _NOT_IN_NAMES.search(value):
            return _BadName(name, value, f"holds {bad[0]!r}")
    return None


def priority_name(priority: int) -> str:
    """The name of Dramatiq's priority, in which less is more urgent and 0 is what everybody has."""
    if priority == 0:
        return "normal"
    return "high" if priority < 0 else "low"
