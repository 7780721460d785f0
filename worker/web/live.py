"""The live tail: one reader of the server's tail for any number of followers.

The reader keeps the newest events, and each follower has a place in them. A follower with an older place, or one that
falls behind because its browser is slow, reads from the server itself until it reaches the kept events. So no follower
waits for another, no events are kept for a single follower, and each follower gets each event exactly once. Events that
the server's tail no longer has are reported as missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf

import redis

from worker.ground.json_values import compact
from worker.ground.logs import get_logger
from worker.history.as_json import Event, Shown
from worker.history.events import StatusEvent
from worker.history.filters import EventFilter
from worker.history.tail import afollow_events, aposition
from worker.server.async_client import AsyncRedisClient
from worker.server.troubles import trouble
from worker.web.turnstile import Turnstile

logger = get_logger(__name__)

KEPT = 10_000
"""The number of kept events: some seconds of a busy system, some megabytes."""

MOST_FOLLOWERS = 100
"""Followers at once: each keeps a connection, and the events that its browser has not read yet."""

AT_ONCE = 200
"""Events that are handled before other tasks of the loop get their turn; one follower is told in each turn."""

_AGAIN_AFTER = 0.5
_LONGEST_NUMBER = 21
_END_OF_NUMBERS = 2**64
_EVERYTHING = EventFilter()

Place = tuple[int, int, float]


@dataclass(slots=True)
class Told:
    """An event in the tail.

    Attributes:
        place: The event's place; places can be compared.
        position: The place as text, from which a follower can continue.
        event: The event.
        missed: Whether events before it were gone.
    """

    place: Place
    position: str
    event: StatusEvent
    missed: bool
    _json: str | None = field(default=None, repr=False)

    def as_json(self, shown: Shown) -> str:
        """The event as JSON, made once for all followers; an application shows all events whole, or none."""
        if self._json is None:
            self._json = compact(Event.of(self.event, shown))
        return self._json


@dataclass(frozen=True, slots=True)
class Batch:
    """The next events for a follower.

    Attributes:
        told: The events, in order; empty if there were none for a while.
        position: The position after them, from which a follower can continue.
        missed: Whether events before these were gone.
    """

    told: list[Told]
    position: str
    missed: bool


def place_of(position: str) -> Place:
    """The place of a position: an entry, and the number of its events before the place; all, if there is no number.

    Raises:
        ValueError: The text is not a position.
    """
    entry, _, seen = position.partition("/")
    milliseconds, _, number = entry.partition("-")
    parts = [milliseconds, number or "0", seen or "0"]
    if not all(part.isascii() and part.isdecimal() and len(part) < _LONGEST_NUMBER for part in parts):
        raise ValueError(f"{position!r} is not a position in the tail")
    place = int(milliseconds), int(number or 0), int(seen) if seen else inf
    # The server would refuse to read from such an entry, because its number is too high, or 0.
    if max(place[:2]) >= _END_OF_NUMBERS or (place[:2] == (0, 0) and seen):
        raise ValueError(f"{position!r} is not a position in the tail")
    return place


class LiveTail:
    """Reads the tail once for all followers, as long as there are any.

    Args:
        client: A client of the server.

    Attributes:
        away_since: The time of the server's last answer, while it does not answer; else None.
    """

    def __init__(self, client: AsyncRedisClient) -> None:
        self._client = client
        self._kept: list[Told] = []
        # All events between these two places are kept; earlier ones are not, or not all.
        self._begin: Place = (0, 0, inf)
        self._end = "0-0"
        self._news = asyncio.Event()
        self._turnstile = Turnstile()
        self._starting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._followers = 0
        self._stopped = False
        self._answered_at = datetime.now(UTC)
        self.away_since: datetime | None = None

    @property
    def is_full(self) -> bool:
        """Whether it has as many followers as it may have."""
        return self._followers >= MOST_FOLLOWERS

    async def follow(self, after: str | None, *, idle: float) -> AsyncGenerator[Batch, None]:
        """Yields the events after a position, without gaps or repeats.

        The first batch is empty, and has the position from which the follower begins.

        Args:
            after: An earlier position, or None for new events only.
            idle: Seconds without an event after which an empty batch comes.

        Raises:
            ServerUnreachable: The server does not answer; only before the first batch.
            ValueError: `after` is not a position; only before the first batch.
        """
        async with self._reader():
            position, missed = await self._join(after)
            yield Batch([], position, missed)
            while not self._stopped:
                is_behind = place_of(position) < self._begin
                async with aclosing(
                    self._catch_up(position) if is_behind else self._kept_after(position, idle)
                ) as found:
                    async for batch in found:
                        position = batch.position
                        if batch.told:
                            await self._turnstile.wait()
                        yield batch

    def stop(self) -> None:
        """Ends all followers at once, and refuses new ones."""
        self._stopped = True
        self._tell()

    async def close(self) -> None:
        """Ends the reader."""
        self.stop()
        if (reading := self._end_reading()) is not None:
            await asyncio.wait([reading])

    # ------------------------------------------------------------------ a follower

    async def _join(self, after: str | None) -> tuple[str, bool]:
        """The position from which a follower begins, and whether it missed events because its own is gone."""
        if after is None:
            return self._end, False
        place = place_of(after)
        if place > place_of(self._end) and place > place_of(newest := await self._newest()):
            # A position of another server, or of events that this server has lost.
            return newest, True
        return after, False

    async def _kept_after(self, position: str, idle: float) -> AsyncGenerator[Batch, None]:
        """Yields one batch of the kept events after a position, or of events that come soon."""
        index = self._index_after(position)
        if index == len(self._kept):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(idle):
                    await self._news.wait()
            index = self._index_after(position)
        elif index + AT_ONCE < len(self._kept):
            await asyncio.sleep(0)
            index = self._index_after(position)
        told = self._kept[index : index + AT_ONCE]
        # The next events may have been dropped meanwhile: then the server still has them.
        if told and place_of(position) >= self._begin:
            yield Batch(told, told[-1].position, any(one.missed for one in told))
        else:
            yield Batch([], position, missed=False)

    def _index_after(self, position: str) -> int:
        return bisect_right(self._kept, place_of(position), key=lambda one: one.place)

    async def _catch_up(self, position: str) -> AsyncGenerator[Batch, None]:
        """Reads from the server until the kept events follow."""
        told: list[Told] = []
        missed = False
        try:
            async for one in afollow_events(self._client, _EVERYTHING, after=position):
                position, missed = one.position, missed or one.missed
                if one.event is not None:
                    told.append(Told(place_of(position), position, one.event, one.missed))
                joined = place_of(position) >= self._begin
                if joined or one.event is None or len(told) == AT_ONCE:
                    yield Batch(told, position, missed)
                    if joined or self._stopped:
                        return
                    told, missed = [], False
                    await asyncio.sleep(0)
        except (redis.RedisError, OSError) as error:
            # Events that were read but not delivered are read again.
            logger.warning("the tail cannot be read for a follower", error=str(error))
            await asyncio.sleep(_AGAIN_AFTER)

    # ------------------------------------------------------------------ the reader

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[None]:
        """Runs the reader as long as there is a follower."""
        self._followers += 1
        try:
            async with self._starting:
                if self._reading is None:
                    self._end = await self._newest()
                    self._begin, self._kept = place_of(self._end), []
                    self._record_answer()
                    self._reading = asyncio.ensure_future(self._read())
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                self._end_reading()

    def _end_reading(self) -> asyncio.Task[None] | None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
        return reading

    async def _newest(self) -> str:
        try:
            return await aposition(self._client)
        except (redis.RedisError, OSError) as error:
            raise trouble(error) from error

    async def _read(self) -> None:
        while self._is_mine():
            try:
                await self._read_on()
            except (redis.RedisError, OSError) as error:
                logger.warning("the tail cannot be read", error=str(error))
                self._record_silence()
            await asyncio.sleep(_AGAIN_AFTER)

    async def _read_on(self) -> None:
        missed, handled = False, 0
        async for one in afollow_events(self._client, _EVERYTHING, after=self._end):
            if not self._is_mine():
                return
            self._record_answer()
            self._end, missed = one.position, missed or one.missed
            if one.event is None:
                continue
            self._kept.append(Told(place_of(one.position), one.position, one.event, missed))
            missed, handled = False, handled + 1
            if len(self._kept) > 2 * KEPT:
                self._begin = self._kept[-KEPT - 1].place
                del self._kept[:-KEPT]
            self._tell()
            if handled % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _record_silence(self) -> None:
        if self.away_since is None:
            self.away_since = self._answered_at
            self._tell()

    def _record_answer(self) -> None:
        self._answered_at = datetime.now(UTC)
        if self.away_since is not None:
            self.away_since = None
            self._tell()

    def _is_mine(self) -> bool:
        """Whether the calling task is still the reader; the client may have swallowed its cancellation."""
        return self._reading is asyncio.current_task()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
