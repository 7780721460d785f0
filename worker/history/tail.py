"""The live tail: events in the order of storing, from any position on, without gaps or repeats after a reconnect.

It keeps the newest events of all messages, some megabytes of them. A follower that comes too late learns that some are
gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from worker.history.events import StatusEvent
from worker.history.filters import EventFilter
from worker.history.lines import from_line
from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.connection import streams_in

NOW = "$"
"""The position after all present events."""

BEGINNING = "0-0"
"""The position before all kept events."""

_PAGE = 200
_FIRST_PAGE = 4
_BLOCK_MS = 1_000
_EVERYTHING = EventFilter()


@dataclass(frozen=True, slots=True)
class Followed:
    """One answer for a follower.

    Attributes:
        position: The position after this; a follower that begins here gets the next events, and none twice.
        event: A matching event, or None after a second without one, so that the caller can stop.
        missed: Whether events before this were removed before the follower read them.
    """

    position: str
    event: StatusEvent | None
    missed: bool = False


def follow_events(client: RedisClient, wanted: EventFilter, *, after: str = NOW) -> Iterator[Followed]:
    """Yields matching events as they come; after a second without one, an empty answer.

    Args:
        client: A client of the server.
        wanted: The filter.
        after: An earlier position, `NOW` or `BEGINNING`.

    Raises:
        ValueError: `after` is not a position.
        redis.RedisError: The server's or the connection's error; follow again after the last position.
    """
    place = _Place(position(client) if after == NOW else after)
    while True:
        pipeline = client.pipeline(transaction=True)
        pipeline.xinfo_stream(client.namespace.tail)
        pipeline.xread({client.namespace.tail: place.before}, count=_PAGE)
        if place.look(pipeline.execute(raise_on_error=False)):
            yield from place.read(wanted)
        elif client.xread({client.namespace.tail: place.before}, count=1, block=_block_ms(client.bound)):
            continue  # it is read with what tells whether something is gone
        else:
            yield place.nothing()


async def afollow_events(client: AsyncRedisClient, wanted: EventFilter, *, after: str = NOW) -> AsyncIterator[Followed]:
    """Yields events like `follow_events`, without blocking the running loop."""
    place = _Place(await aposition(client) if after == NOW else after)
    while True:
        pipeline = client.pipeline(transaction=True)
        pipeline.xinfo_stream(client.namespace.tail)
        pipeline.xread({client.namespace.tail: place.before}, count=_PAGE)
        if place.look(await pipeline.execute(raise_on_error=False)):
            for one in place.read(wanted):
                yield one
        elif await client.xread({client.namespace.tail: place.before}, count=1, block=_block_ms(client.bound)):
            continue  # it is read with what tells whether something is gone
        else:
            yield place.nothing()


def _block_ms(bound: float) -> int:
    """The milliseconds of a wait at the server: well below the bound, so that a wait is not taken for silence."""
    return max(1, round(min(_BLOCK_MS, bound * 1000 / 2)))


def position(client: RedisClient) -> str:
    """The position after all present events."""
    return _newest_of(client.xrevrange(client.namespace.tail, count=1))


async def aposition(client: AsyncRedisClient) -> str:
    """The position after all present events."""
    return _newest_of(await client.xrevrange(client.namespace.tail, count=1))


def _newest_of(entries: Any) -> str:  # noqa: ANN401 - as the server answers
    return entries[0][0].decode() if entries else BEGINNING


class _Place:
    """The place of a follower: an entry, and the number of its events that were read, or None for all of them.

    Counting shows whether entries are gone: the stream knows how many entries it ever had, and a follower that has
    reached its end knows how many it has read. Before that, the follower checks whether its own entry still exists.
    """

    def __init__(self, after: str) -> None:
        entry, _, seen = after.partition("/")
        milliseconds, dash, number = entry.partition("-")
        if not (milliseconds.isdigit() and (not dash or number.isdigit()) and (not seen or seen.isdigit())):
            raise ValueError(f"{after!r} is not a position in the tail")
        self._entry = int(milliseconds), int(number or 0)
        self._seen = int(seen) if seen else None
        self._entries: list[tuple[bytes, dict[bytes, bytes]]] = []
        self._read: int | None = None
        self._missed = False
        self._spoke_at = time.monotonic()

    @property
    def before(self) -> str:
        """The entry after which reading begins."""
        milliseconds, number = self._entry
        if self._seen is None:
            return f"{milliseconds}-{number}"
        # The entry itself is read again, because some of its events are still wanted.
        return f"{milliseconds}-{number - 1}" if number else f"{milliseconds - 1}-{2**64 - 1}"

    def look(self, answers: list[Any]) -> bool:
        """Takes the stream's present state and its next entries; False if there are no next entries."""
        about, answer = answers
        if isinstance(answer, Exception):
            raise answer
        about = {} if isinstance(about, Exception) else about  # there is no stream yet
        self._entries = [one for _, entries in streams_in(answer) for one in entries]
        added = int(about.get("entries-added", 0))
        gone = added - int(about.get("length", 0))
        if self._read is not None:
            missed = gone > self._read
        else:
            oldest: Any = about.get("first-entry")
            missed = bool(oldest) and self._entry > (0, 0) and _number_of(oldest[0]) > self._entry
        self._missed = self._missed or missed
        if len(self._entries) < _PAGE:
            self._read = added
        elif missed:
            self._read = gone + len(self._entries)
        elif self._read is not None:
            self._read += len(self._entries)
        return bool(self._entries)

    def read(self, wanted: EventFilter) -> Iterator[Followed]:
        """Yields matching events; after a second without one, an empty answer."""
        for entry, fields in self._entries:
            number = _number_of(entry)
            seen = (self._seen or 0) if number == self._entry else 0
            events = list(read_entry(fields.get(b"e", b"")))
            for count, event in enumerate(events[seen:], seen + 1):
                self._entry, self._seen = number, count if count < len(events) else None
                if wanted.matches(event):
                    yield self._tell(event)
            self._entry, self._seen = number, None
        if time.monotonic() - self._spoke_at > _BLOCK_MS / 1000:
            yield self.nothing()

    def nothing(self) -> Followed:
        """The empty answer."""
        return self._tell(None)

    def _tell(self, event: StatusEvent | None) -> Followed:
        missed, self._missed = self._missed, False
        self._spoke_at = time.monotonic()
        return Followed(self._text(), event, missed)

    def _text(self) -> str:
        entry = f"{self._entry[0]}-{self._entry[1]}"
        return entry if self._seen is None else f"{entry}/{self._seen}"


def newest_of_tail(client: RedisClient, wanted: EventFilter, limit: int) -> list[StatusEvent]:
    """The newest matching events of the tail, newest first."""
    found: list[StatusEvent] = []
    last, page = "+", _FIRST_PAGE
    while len(found) < limit:
        entries: Any = client.xrevrange(client.namespace.tail, max=last, count=page)
        for entry, fields in entries:
            last = f"({entry.decode()}"
            found += reversed([one for one in read_entry(fields.get(b"e", b""), wanted) if wanted.matches(one)])
        if len(entries) < page:
            break
        # An entry has one event or a hundred, and few or all of them may match.
        page = min(4 * page, _PAGE)
    return found[:limit]


def read_entry(text: bytes, wanted: EventFilter = _EVERYTHING) -> Iterator[StatusEvent]:
    """The events of an entry. Some events that do not match are left out without reading them.

    Events of a later version that this one cannot read are skipped.
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
