"""What the history answers with, as JSON types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any

from worker.history.answers import StoredMessage
from worker.history.events import StatusEvent


def plain(value: Any) -> Any:  # noqa: ANN401, PLR0911 - any answer, a line each
    """An answer as JSON types; times in UTC, durations in seconds and named so."""
    if isinstance(value, StatusEvent):
        return value.to_dict()
    if isinstance(value, StoredMessage):
        return plain_message(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_pairs({part.name: getattr(value, part.name) for part in fields(value)})
    if isinstance(value, Mapping):
        return _plain_pairs(value)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def _plain_pairs(pairs: Mapping[str, object]) -> dict[str, Any]:
    return {f"{name}_seconds" if isinstance(one, timedelta) else name: plain(one) for name, one in pairs.items()}


def plain_message(message: StoredMessage, *, arguments: bool = False, events: bool = False) -> dict[str, Any]:
    """A message as JSON types, its arguments and its events only on request."""
    found = {
        "id": message.id,
        "state": message.state,
        "since": plain(message.since),
        "enqueued": plain(message.enqueued),
        "actor": message.actor,
        "queue": message.queue,
        "priority": message.priority,
        "attempts": message.attempts,
        "subject": dict(message.subject),
        "last_error": message.last_error,
    }
    if arguments:
        found["arguments"] = message.arguments
    if events:
        found |= {"events": plain(message.events), "events_left_out": message.events_left_out}
    return found
