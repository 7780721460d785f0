"""How events are asked back: by message, subject, actor, state and time, and as a live tail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import redis

from worker.history.events import State, StatusEvent
from worker.history.writer import FIELD, STREAM

_PAGE = 500
_BLOCK_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are wanted: those that match everything that is set.

    `subject` is compared by its text, so that `conversation_id=42` finds 42 and "42".
    """

    message_id: str | None = None
    subject: Mapping[str, str] = field(default_factory=dict)
    actor: str | None = None
    state: State | None = None
    since: datetime | None = None

    def matches(self, event: StatusEvent) -> bool:
        """Whether the event is wanted."""
        return (
            self.message_id in (None, event.message_id)
            and self.actor in (None, event.actor)
            and self.state in (None, event.state)
            and (self.since is None or event.time >= self.since)
            and all(str(event.subject.get(key)) == value for key, value in self.subject.items())
        )


def read_events(client: redis.Redis, wanted: EventFilter, limit: int) -> list[StatusEvent]:
    """The newest `limit` events that match, oldest first."""
    found: list[StatusEvent] = []
    for _, event in _newest_first(client, wanted):
        if wanted.matches(event):
            found.append(event)
            if len(found) == limit:
                break
    return found[::-1]


def follow_events(client: redis.Redis, wanted: EventFilter, *, after: str = "$") -> Iterator[StatusEvent | None]:
    """Matching events as they come, after the stream's entry `after` (`$`: from now on), without gaps.

    Yields `None` now and then while nothing comes, so that the caller can stop.
    """
    last = position(client) if after == "$" else after
    while True:
        answer: Any = client.xread({STREAM: last}, count=_PAGE, block=_BLOCK_MS)
        if not answer:
            yield None
            continue
        for entry, event in _entries_of(answer):
            last = entry
            if event is not None and wanted.matches(event):
                yield event


def position(client: redis.Redis) -> str:
    """The stream's newest entry: where a tail that misses nothing begins."""
    newest: Any = client.xrevrange(STREAM, count=1)
    return newest[0][0].decode() if newest else "0-0"


def _entries_of(answer: Any) -> Iterator[tuple[str, StatusEvent | None]]:  # noqa: ANN401 - RESP2 and RESP3 differ
    entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
    for entry, fields in entries:
        yield entry.decode(), _decode(fields)


def _newest_first(client: redis.Redis, wanted: EventFilter) -> Iterator[tuple[str, StatusEvent]]:
    oldest = "-" if wanted.since is None else str(int(wanted.since.timestamp() * 1000))
    newest = "+"
    seen: set[str] = set()
    while True:
        page: Any = client.xrevrange(STREAM, max=newest, min=oldest, count=_PAGE)
        for entry, fields in page:
            event = _decode(fields)
            # A group whose answer was lost is written again: the same event twice.
            if event is not None and event.id not in seen:
                seen.add(event.id)
                yield entry.decode(), event
        if len(page) < _PAGE:
            return
        newest = "(" + page[-1][0].decode()


def _decode(fields: Mapping[bytes, bytes]) -> StatusEvent | None:
    try:
        return StatusEvent.from_json(fields[FIELD])
    except (KeyError, ValueError):
        return None
