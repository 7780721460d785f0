"""The form of a message on the server: Dramatiq's own fields, as one line of JSON, bounded in size and never pickled.

No function here asks the server or the broker.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import dramatiq

from worker.broker.encoders import encoded, own_encoder
from worker.errors import MessageRefused

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_decode = json.JSONDecoder().raw_decode

_FIELDS = {one.name for one in dataclasses.fields(dramatiq.Message)}

NOT_DELAYED = -1

FREED_AT_START = "unique_until_start"
"""The option of a message whose begin frees its unique key."""

PRIORITY = "priority"
"""The option of a message with a priority of its own, as Dramatiq counts those of actors."""

_MAX_DELAY = 10_000_000_000_000
"""Milliseconds of the longest delay, three centuries."""

# The separators of fields in records and commits, and the halves of characters, which no server takes.
_NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class Parcel(NamedTuple):
    """A message for the scripts that enqueue, with the fields in the order that they read.

    Attributes:
        message_id: The message's id.
        payload: The message as one line.
        queue: The message's queue.
        priority: `high`, `normal` or `low`.
        actor: The message's actor.
        subjects: The parts of its subject, with the character 30 between two, or empty.
        delay_ms: Milliseconds of its delay, or `NOT_DELAYED`.
        unique: The key that must not wait or run twice, or empty.
        ttl_ms: Milliseconds for which it holds the key, from when it is due.
        until_start: 1 if its begin frees the key, 0 if its end does.
        seen_ms: Milliseconds for which its id is remembered, from when it is due, if it is enqueued only if its id was
            never seen; or 0.
        fence: The fence of its own attempt that enqueues it, or 0.
    """

    message_id: str
    payload: bytes
    queue: str
    priority: str
    actor: str
    subjects: str = ""
    delay_ms: int = NOT_DELAYED
    unique: str = ""
    ttl_ms: int = 0
    until_start: int = 0
    seen_ms: int = 0
    fence: int = 0


PLAIN = (NOT_DELAYED, "", 0, 0, 0, 0)
"""The last fields of a message that is neither delayed nor unique nor its own attempt's, and may be enqueued again."""


def pack(
    message: dramatiq.Message[Any],
    max_bytes: int,
    *,
    priority: int = 0,
    subjects: str = "",
    delay: float | None = None,
) -> Parcel:
    """Makes a message ready for the server.

    Args:
        message: The message.
        max_bytes: The most bytes of the message.
        priority: Its priority, as Dramatiq counts it.
        subjects: The parts of its subject, as the parcel has them.
        delay: Milliseconds of its delay, or None.

    Raises:
        MessageRefused: An argument or option is not plain JSON, or the whole is too large.
    """
    return Parcel(
        message.message_id,
        encode(message, max_bytes),
        message.queue_name,
        priority_name(priority),
        message.actor_name,
        subjects,
        # Dramatiq makes a fraction of a `timedelta`.
        NOT_DELAYED if delay is None else max(0, round(min(delay, _MAX_DELAY))),
    )


def encode(message: dramatiq.Message[Any], max_bytes: int) -> bytes:
    """The message as one line.

    Raises:
        MessageRefused: An argument or option is not plain JSON, or the whole is too large.
    """
    try:
        fields: Any = {
            "queue_name": message.queue_name,
            "actor_name": message.actor_name,
            "args": message.args,
            "kwargs": message.kwargs,
            "options": message.options,
            "message_id": message.message_id,
            "message_timestamp": message.message_timestamp,
        }
        if (own := own_encoder()) is not None:
            fields = encoded(own, fields)
        line = _encode(fields).encode()
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
    """Reads a line of `encode`.

    Raises:
        ValueError: The line is not a message.
    """
    # The error does not show the content, because people who may not see arguments see it.
    size = f"{len(line)} bytes"
    own = own_encoder()
    try:
        text = line.decode()
        fields, end = _decode(text) if own is None else (own.decode(line), len(text))
    except Exception as error:
        complaint = "are no JSON" if own is None else f"{type(own).__name__} cannot read ({type(error).__name__})"
        raise ValueError(f"not a message: {size} that {complaint}") from error
    if end != len(text):
        raise ValueError(f"not a message: {size} that are more than JSON")
    try:
        message = _message(fields)
    except TypeError as error:
        raise ValueError(f"not a message: {size} of JSON without the fields of one") from error
    if not isinstance(message.kwargs, dict) or not isinstance(message.options, dict):
        raise ValueError(f"not a message: {size} of JSON with bad kwargs or options")  # noqa: TRY004 - what is read is bad
    if bad := _bad_name(message):
        raise ValueError(f"not a message: {size} of JSON whose {bad.name} {bad.complaint}")
    return message


def _message(fields: dict[str, Any]) -> dramatiq.Message[Any]:
    """The message with these fields.

    Raises:
        TypeError: They are not those of a message.
    """
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        return dramatiq.Message(**fields)  # which has values for what may be left out
    fields["args"] = tuple(fields["args"])
    # Not by its own `__init__`, which takes six times as long: it sets each field of a frozen class by itself.
    message: dramatiq.Message[Any] = dramatiq.Message.__new__(dramatiq.Message)
    vars(message).update(fields)
    return message


class _BadName(NamedTuple):
    name: str
    value: object
    complaint: str


def _bad_name(message: dramatiq.Message[Any]) -> _BadName | None:
    """A name of the message that cannot be a field or a part of a key, or None."""
    unique = message.options.get("unique") or ""
    # Asked of all at once, in a third of the time: what is not allowed cannot be printed.
    if _can_be_printed(message.message_id, message.queue_name, message.actor_name, unique):
        return None
    for name, value in (
        ("message_id", message.message_id),
        ("queue_name", message.queue_name),
        ("actor_name", message.actor_name),
        ("unique", unique),
    ):
        if not isinstance(value, str):
            return _BadName(name, value, "is no text")
        if bad := _NOT_IN_NAMES.search(value):
            return _BadName(name, value, f"holds {bad[0]!r}")
    return None


def _can_be_printed(*names: Any) -> bool:  # noqa: ANN401 - of a message that others made
    try:
        return "".join(names).isprintable()
    except TypeError:
        return False  # one is no text


def priority_of(options: Mapping[str, object], actor: dramatiq.Actor[..., Any] | None) -> int:
    """The priority of a message with these options: its own, or that of its actor, as Dramatiq counts them."""
    own = options.get(PRIORITY)
    if isinstance(own, int):
        return own
    return 0 if actor is None else actor.priority


def priority_name(priority: int) -> str:
    """The name of a priority of Dramatiq's: a lower number is more urgent, and 0 is the default."""
    if priority == 0:
        return "normal"
    return "high" if priority < 0 else "low"
