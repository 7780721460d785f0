"""How the history is asked: messages and their events by id, subject, actor, state and time, and as a live tail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import redis

from worker.history.events import State, StatusEvent
from worker.history.lines import from_line, subject_names
from worker.scripts import RECORDS, Argument, Script

TAIL = "worker:events"

_PAGE = 200
_BLOCK_MS = 1_000
_GIVE_UP_AFTER = 50_000
"""Messages without a match after which nobody looks further back: what is asked for by time alone has no index."""

_FIND = Script(RECORDS, ("worker.history", "find.lua"))

_MARK_OF = {
    State.COMPLETED: "state:completed",
    State.SKIPPED: "state:skipped",
    State.FAILED: "ended:failed",
    State.CANCELLED: "ended:cancelled",
    State.LOST: "ended:lost",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """What the server keeps of a message, or of a run outside a worker.

    Attributes:
        id: The message's id, or the run's.
        state: queued, delayed, running, completed, skipped, dead or cancelled.
        since: Since when it is in that state; when it is due, if it is delayed.
        attempts: How many attempts have begun.
        fence: How often it has been delivered, or could have been.
        actor: The actor's name; empty for a run outside a worker.
        queue: Its queue; empty for a run outside a worker.
        payload: The message as it was enqueued, JSON.
        events: What happened to it, oldest first.
        events_left_out: How many older events were dropped because there were too many.
    """

    id: str
    state: str
    since: datetime
    attempts: int
    fence: int
    actor: str
    queue: str
    payload: bytes
    events: tuple[StatusEvent, ...]
    events_left_out: int


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


def read_message(client: redis.Redis, message_id: str) -> StoredMessage | None:
    """What is kept of the message; `None` if nothing is."""
    found: Any = client.get(f"worker:m:{message_id}")
    return _parse(message_id, found)


def count_states(client: redis.Redis) -> dict[str, int]:
    """How many messages are in each state; states without any are left out."""
    found: Any = client.hgetall("worker:states")
    return {state.decode(): int(number) for state, number in found.items() if int(number)}


def find_messages(client: redis.Redis, *, subject: str = "", marks: tuple[str, ...] = ()) -> Iterator[StoredMessage]:
    """Messages that bear every mark (`actor:…`, `queue:…`, `state:…`, `error:…`), newest first."""
    below = -1
    while True:
        arguments: list[Argument] = [_PAGE, below, subject, len(marks), *marks]
        below, *ids = _FIND.run(client, arguments)
        records: Any = client.mget([b"worker:m:" + one for one in ids]) if ids else []
        for one, record in zip(ids, records, strict=True):
            message = _parse(one.decode(), record)
            if message is not None:
                yield message
        if below < 0:
            return


def read_events(client: redis.Redis, wanted: EventFilter, limit: int) -> list[StatusEvent]:
    """The newest `limit` events that match, oldest first."""
    # An old message may have new events: they are in the tail, which does not reach far back.
    found = {event.id: event for event in _newest(client, wanted, limit)} if wanted.message_id is None else {}
    without = 0
    for message in _candidates(client, wanted) if len(found) < limit else ():
        matching = {event.id: event for event in reversed(message.events) if wanted.matches(event)}
        found |= matching
        without = 0 if matching else without + 1
        if len(found) >= limit or without >= _GIVE_UP_AFTER:
            break
    newest_first = list(found.values())
    if wanted.message_id is None:
        # Those of the same millisecond stay in the order of their messages.
        newest_first.sort(key=lambda event: event.time, reverse=True)
    # Those of one message are in the order in which they were stored: clocks of processes differ.
    return newest_first[:limit][::-1]


def _newest(client: redis.Redis, wanted: EventFilter, limit: int) -> list[StatusEvent]:
    """The newest events of the tail that match, newest first."""
    found: list[StatusEvent] = []
    last = "+"
    while len(found) < limit:
        entries: Any = client.xrevrange(TAIL, max=last, count=_PAGE)
        for entry, fields in entries:
            last = f"({entry.decode()}"
            found += reversed([event for event in _read_tail(fields.get(b"e", b"")) if wanted.matches(event)])
        if len(entries) < _PAGE:
            break
    return found[:limit]


def follow_events(client: redis.Redis, wanted: EventFilter, *, after: str = "$") -> Iterator[StatusEvent | None]:
    """Matching events as they come, after the tail's entry `after` (`$`: from now on), without gaps.

    Yields `None` now and then while nothing comes, so that the caller can stop.
    """
    last = position(client) if after == "$" else after
    while True:
        answer: Any = client.xread({TAIL: last}, count=_PAGE, block=_BLOCK_MS)
        if not answer:
            yield None
            continue
        for entry, fields in _entries_of(answer):
            last = entry
            yield from (event for event in _read_tail(fields.get(b"e", b"")) if wanted.matches(event))


def position(client: redis.Redis) -> str:
    """The tail's newest entry: where one that misses nothing begins."""
    newest: Any = client.xrevrange(TAIL, count=1)
    return newest[0][0].decode() if newest else "0-0"


def _candidates(client: redis.Redis, wanted: EventFilter) -> Iterator[StoredMessage]:
    if wanted.message_id is not None:
        one = read_message(client, wanted.message_id)
        if one is not None:
            yield one
        return
    marks = [f"actor:{wanted.actor}"] if wanted.actor is not None else []
    if wanted.state in _MARK_OF:
        marks.append(_MARK_OF[wanted.state])
    subject = next(iter(subject_names(wanted.subject)), "")
    yield from find_messages(client, subject=subject, marks=tuple(marks))


def _parse(message_id: str, record: bytes | None) -> StoredMessage | None:
    try:
        head, payload, lines = (record or b"").split(b"\n", 2)
        _, state, fence, attempts, _, _, since, cut, _, queue, actor, *_ = head.decode().split("\t")
    except ValueError:
        return None
    events = []
    for line in lines.splitlines():
        # One that a later version wrote, and this one cannot read, does not hide the others.
        with contextlib.suppress(ValueError):
            events.append(from_line(line, message_id, actor, queue))
    return StoredMessage(
        id=message_id,
        state=state,
        since=datetime.fromtimestamp(float(since) / 1000, UTC),
        attempts=int(attempts),
        fence=int(fence),
        actor=actor,
        queue=queue,
        payload=payload,
        events=tuple(events),
        events_left_out=int(cut),
    )


def _read_tail(text: bytes) -> Iterator[StatusEvent]:
    message_id = actor = queue = ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            if line.startswith(b"{"):
                yield from_line(line, message_id, actor, queue)
            else:
                message_id, actor, queue = line.decode().split("\t")


def _entries_of(answer: Any) -> Iterator[tuple[str, Mapping[bytes, bytes]]]:  # noqa: ANN401 - RESP2 and RESP3 differ
    entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
    for entry, fields in entries:
        yield entry.decode(), fields
