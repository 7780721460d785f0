"""The live tail as server-sent events, each with its position, from which a browser continues after a break.

A line with a position but no event means that no event came; an event `missed` means that some events are gone, and
`away` and `back` that the server does not answer, and answers again.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from sse_starlette import EventSourceResponse

from worker.errors import ConfigurationError
from worker.ground.json_values import iso
from worker.history.as_json import Shown
from worker.history.filters import EventFilter
from worker.web.answers import shown_to
from worker.web.dependencies import Held, Visiting
from worker.web.live import MOST_FOLLOWERS, Batch, LiveTail, place_of
from worker.web.parameters import event_filter
from worker.web.resources import Resources
from worker.web.security import Visitor

HEARTBEAT = 10.0
"""Seconds without an event after which a position is sent, so that browsers and proxies notice a broken connection."""

ENDS_WITHIN = 3.0
"""Seconds in which a tail must end when it is told to; without them, it would be cut off inside its answer."""

_AGAIN_MS = 1_000

router = APIRouter(tags=["tail"])


# Not in the schema, because it has no end: a program that tries every described path would wait for it.
@router.get("/events/live", include_in_schema=False, name="live_events")
async def live_events(
    wanted: Annotated[EventFilter, Depends(event_filter)],
    held: Held,
    visitor: Visiting,
    after: Annotated[str | None, Query(max_length=100)] = None,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> EventSourceResponse:
    """Matching events as they come: after `Last-Event-ID`, or after `after`, or from now on."""
    position = last_event_id or after
    try:
        place_of(position or "0")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    tail = await held.tail()
    if tail.is_full:
        raise HTTPException(503, f"{MOST_FOLLOWERS} live tails are open, and that is the most: close some")
    following = tail.follow(position, idle=HEARTBEAT)
    # Before the answer begins, so that a server that is away gives an error.
    first = await anext(following)
    stream = _stream(tail, first, following, wanted, shown_to(visitor), has_left=lambda: _has_left(held, visitor))
    return EventSourceResponse(stream, ping=0, shutdown_grace_period=ENDS_WITHIN)


async def _stream(
    tail: LiveTail,
    first: Batch,
    following: AsyncGenerator[Batch, None],
    wanted: EventFilter,
    shown: Shown,
    *,
    has_left: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[bytes, None]:
    yield f"retry: {_AGAIN_MS}\nid: {first.position}\n\n{_missed(first)}".encode()
    last_sent = last_asked = time.monotonic()
    away = None
    async with aclosing(following):
        async for batch in following:
            if time.monotonic() - last_asked >= HEARTBEAT:
                if await has_left():
                    return
                last_asked = time.monotonic()
            matching = [one for one in batch.told if wanted.matches(one.event)]
            lines = [_missed(batch), *(f"id: {one.position}\ndata: {one.as_json(shown)}\n\n" for one in matching)]
            if not matching and time.monotonic() - last_sent >= HEARTBEAT:
                lines.append(f": nothing new\nid: {batch.position}\n\n")
            if tail.away_since != away:
                away = tail.away_since
                lines.append(_away(away))
            if text := "".join(lines):
                last_sent = time.monotonic()
                yield text.encode()


async def _has_left(held: Resources, visitor: Visitor) -> bool:
    """Whether the visitor's session has ended since it was let in."""
    return visitor.session is not None and await held.logged_out.has_ended(visitor.session)


def _away(since: datetime | None) -> str:
    if since is None:
        return "event: back\ndata: {}\n\n"
    return f"event: away\ndata: {json.dumps({'since': iso(since)})}\n\n"


def _missed(batch: Batch) -> str:
    said = json.dumps({"position": batch.position})
    return f"event: missed\ndata: {said}\n\n" if batch.missed else ""
