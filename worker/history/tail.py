"""The live tail: events as they are stored, from any point of it on, without gaps or repeats across a reconnect.

It keeps the newest events of all messages, some megabytes of them. Who falls so far behind that some are gone is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import redis
from redis import asyncio as redis_asyncio

from worker.connection import streams_in
from worker.history.events import StatusEvent
from worker.history.filters import EventFilter
from worker.history.lines import from_line

TAIL = "worker:events"

NOW = "$"
"""The position after everything that is stored now."""

BEGINNING = "0-0"
"""The position before everything that is kept."""

_PAGE = 200
_FIRST_PAGE = 4
_BLOCK_MS = 1_000
_EVERYTHING = EventFilter()


@dataclass(frozen=True, slots=True)
class Followed:
    """What a follower gets.

    Attributes:
        position: Who begins to follow after it gets what comes next, and nothing twice.
        event: An event that matches; `None`: nothing came for a second, so that the caller can stop.
        missed: Whether events before this were gone when the follower came to read them.
    """

    position: str
    event: StatusEvent | None
    missed: bool = False


def follow_events(client: redis.Redis, wanted: EventFilter, *, after: str = NOW) -> Iterator[Followed]:
    """Matching events as they come.

    Args:
        client: Of the server.
        wanted: Which.
        after: A position that was given before, `NOW` or `BEGINNING`.

    Raises:
        ValueError: `after` is no position.
        redis.RedisError: What the server or the connection had to say; follow on after the last position.
    """
    place = _Place(position(client) if after == NOW else after)
    while True:
        oldest: Any = client.xrange(TAIL, count=1)
        missed = place.is_behind(oldest)
        answer: Any = client.xread({TAIL: place.before}, count=_PAGE, block=_BLOCK_MS)
        yield from place.read(answer, wanted, missed=missed)


async def afollow_events(
    client: redis_asyncio.Redis, wanted: EventFilter, *, after: str = NOW
) -> AsyncIterator[Followed]:
    """Does what `follow_events` does without blocking the running loop."""
    place = _Place(await aposition(client) if after == NOW else after)
    while True:
        oldest: Any = await client.xrange(TAIL, count=1)
        missed = place.is_behind(oldest)
        answer: Any = await client.xread({TAIL: place.before}, count=_PAGE, block=_BLOCK_MS)
        for one in place.read(answer, wanted, missed=missed):
            yield one


def position(client: redis.Redis) -> str:
    """The position after everything that is stored now."""
    return _newest_of(client.xrevrange(TAIL, count=1))


async def aposition(client: redis_asyncio.Redis) -> str:
    """The position after everything that is stored now."""
    return _newest_of(await client.xrevrange(TAIL, count=1))


def _newest_of(entries: Any) -> str:  # noqa: ANN401 - as the server answers
    return entries[0][0].decode() if entries else BEGINNING


class _Place:
    """How far a follower has read: an entry, and how many of its events; none: all of them."""

    def __init__(self, after: str) -> None:
        entry, _, seen = after.partition("/")
        milliseconds, dash, number = entry.partition("-")
        if not (milliseconds.isdigit() and (not dash or number.isdigit()) and (not seen or seen.isdigit())):
            raise ValueError(f"{after!r} is no position in the tail")
        self._entry = int(milliseconds), int(number or 0)
        self._seen = int(seen) if seen else None

    @property
    def before(self) -> str:
        """The entry after which is to be read."""
        milliseconds, number = self._entry
        if self._seen is None:
            return f"{milliseconds}-{number}"
        # The entry itself once more: some of its events are wanted.
        return f"{milliseconds}-{number - 1}" if number else f"{milliseconds - 1}-{2**64 - 1}"

    def is_behind(self, oldest: Any) -> bool:  # noqa: ANN401 - as the server answers
        """Whether entries after this place are gone already."""
        return bool(oldest) and self._entry > (0, 0) and _number_of(oldest[0][0]) > self._entry

    def read(self, answer: Any, wanted: EventFilter, *, missed: bool) -> Iterator[Followed]:  # noqa: ANN401
        if not answer:
            yield Followed(self._text(), None, missed)
        for entry, fields in (one for _, entries in streams_in(answer) for one in entries):
            number = _number_of(entry)
            seen = (self._seen or 0) if number == self._entry else 0
            events = list(read_entry(fields.get(b"e", b"")))
            for count, event in enumerate(events[seen:], seen + 1):
                self._entry, self._seen = number, count if count < len(events) else None
                if wanted.matches(event):
                    yield Followed(self._text(), event, missed)
                    missed = False
            self._entry, self._seen = number, None

    def _text(self) -> str:
        entry = f"{self._entry[0]}-{self._entry[1]}"
        return entry if self._seen is None else f"{entry}/{self._seen}"


def newest_of_tail(client: redis.Redis, wanted: EventFilter, limit: int) -> list[StatusEvent]:
    """The newest events of the tail that match, newest first."""
    found: list[StatusEvent] = []
    last, page = "+", _FIRST_PAGE
    while len(found) < limit:
        entries: Any = client.xrevrange(TAIL, max=last, count=page)
        for entry, fields in entries:
            last = f"({entry.decode()}"
            found += reversed([one for one in read_entry(fields.get(b"e", b""), wanted) if wanted.matches(one)])
        if len(entries) < page:
            break
        # An entry has one event or a hundred, and few or all of them may match.
        page = min(4 * page, _PAGE)
    return found[:limit]


def read_entry(text: bytes, wanted: EventFilter = _EVERYTHING) -> Iterator[StatusEvent]:
    """The events of an entry, some of those that are not wanted left out unread.

    What a later version wrote, and this one cannot read, is passed over.
    """
    message_id = actor = queue = ""
    begin = b"{" if wanted.state is None else b'{"s":"%s"' % wanted.state.encode()
    is_wanted = True
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            if not line.startswith(b"{"):
                message_id, actor, queue = line.decode().split("\t")
                is_wanted = wanted.actor in {None, actor} and wanted.queue in {None, queue}
            elif is_wanted and line.startswith(begin):
                yield from_line(line, message_id, actor, queue)


def _number_of(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.decode().partition("-")
    return int(milliseconds), int(number)
