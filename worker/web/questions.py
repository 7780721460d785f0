"""The questions, each as JSON; what is asked belongs to `worker.history`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query

from worker.bridge import run_in_thread_pool
from worker.history.answers import StoredMessage, moment
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import actor_rates, audit_log, queues, windows, workers
from worker.history.query import (
    aask,
    count_of_messages,
    dead_by_cause,
    delayed_messages,
    one_message,
    page_of_messages,
    read_events,
    running_messages,
    state_counts,
)
from worker.history.states import MessageState
from worker.history.tail import aposition
from worker.web import shapes
from worker.web.dependencies import Client, History, Visiting
from worker.web.parameters import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    Over,
    event_filter,
    message_filter,
    read_over,
)
from worker.web.problems import NOT_FOUND

router = APIRouter(tags=["questions"])

_MOST_STEPS = 20
"""Of a count: each looks at some thousand messages, or at all of them where none has to be looked at."""

Wanted = Annotated[MessageFilter, Depends(message_filter)]
WantedEvents = Annotated[EventFilter, Depends(event_filter)]
MessageId = Annotated[str, Path(min_length=1, max_length=200, description="The message's id.")]


@router.get("/session")
async def session(visitor: Visiting) -> shapes.Session:
    """Who asks, and what the visitor may do."""
    return shapes.Session.model_validate(visitor)


@router.get("/messages")
async def messages(
    wanted: Wanted, history: History, visitor: Visiting, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> shapes.MessagePage:
    """Messages that match, newest first. A page may be short although there are more: ask on with its cursor."""
    page = await aask(history, page_of_messages(wanted, limit=limit, cursor=cursor))
    shown = shapes.shown_messages(page.messages, whole=visitor.shows_arguments)
    return shapes.MessagePage(messages=shown, cursor=page.cursor)


@router.get("/messages/count")
async def count(wanted: Wanted, history: History, cursor: Cursor = None) -> shapes.Count:
    """How many messages match."""
    total = 0
    for _ in range(_MOST_STEPS):
        found = await aask(history, count_of_messages(wanted, cursor=cursor))
        total, cursor = total + found.count, found.cursor
        if cursor is None:
            break
    return shapes.Count(count=total, cursor=cursor)


@router.get("/messages/{message_id}", responses=NOT_FOUND)
async def message(message_id: MessageId, history: History, visitor: Visiting) -> shapes.MessageDetail:
    """One message with every attempt: events, durations, waits, progress, worker, errors."""
    found = await aask(history, one_message(message_id))
    if found is None:
        raise HTTPException(404, f"nothing is kept of a message {message_id}")
    return shapes.MessageDetail.of(found, whole=visitor.shows_arguments)


@router.get("/running")
async def running(
    history: History, visitor: Visiting, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> shapes.RunningPage:
    """What runs now: where, since when, when its worker was last heard of, and how far it is."""
    page, alive = await asyncio.gather(
        aask(history, running_messages(limit=limit, cursor=cursor)), aask(history, workers())
    )
    heartbeats = {(worker.host, worker.pid): worker.heartbeat for worker in alive}
    shown = [shapes.Running.at(one, heartbeats, whole=visitor.shows_arguments) for one in page.messages]
    return shapes.RunningPage(messages=shown, cursor=page.cursor)


@router.get("/delayed")
async def delayed(
    history: History,
    visitor: Visiting,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9]{1,13}/.+$", max_length=300, description="The last page's.")
    ] = None,
) -> shapes.DelayedPage:
    """What is delayed, and when it is due (`since`); the next to be due first."""
    after = None if cursor is None else last_of_page(cursor)
    found = await aask(history, delayed_messages(limit=limit, after=after))
    last = found[-1] if len(found) == limit else None
    return shapes.DelayedPage(
        messages=shapes.shown_messages(found, whole=visitor.shows_arguments),
        cursor=None if last is None else f"{round(last.since.timestamp() * 1000)}/{last.id}",
    )


def last_of_page(cursor: str) -> StoredMessage:
    """As much of it as the next page needs to know: it may not be delayed any more."""
    due, _, message_id = cursor.partition("/")
    return StoredMessage(
        id=message_id,
        number=0,
        state=MessageState.DELAYED,
        since=moment(int(due)),
        attempts=0,
        fence=0,
        priority="",
        actor="",
        queue="",
        subject={},
        payload=b"",
        events=(),
        events_left_out=0,
    )


@router.get("/states")
async def states(history: History) -> dict[str, int]:
    """How many messages are in each state; states without any are left out."""
    return await aask(history, state_counts())


@router.get("/dead")
async def dead(history: History) -> dict[str, int]:
    """Dead letters by the type of the error they died of (`lost`: their workers died), the most frequent first."""
    return {str(shapes.readable(cause)): number for cause, number in (await aask(history, dead_by_cause())).items()}


@router.get("/actors")
async def actors(history: History, over: Over = "1h") -> list[shapes.Rates]:
    """How each actor fared over a time that ends now, the busiest first."""
    return [shapes.Rates.of(one) for one in await aask(history, actor_rates(read_over(over)))]


@router.get("/windows")
async def windows_over_time(history: History, over: Over = "1h") -> list[shapes.Window]:
    """What happened in each minute (over more than two hours: in each hour), the oldest first."""
    return [shapes.Window.of(one) for one in await aask(history, windows(read_over(over)))]


@router.get("/queues")
async def queues_by_name(history: History) -> list[shapes.Queue]:
    """The queues: how much waits there, for how long the oldest, and whether they are paused."""
    return [shapes.Queue.of(one) for one in await aask(history, queues())]


@router.get("/workers")
async def worker_processes(history: History) -> list[shapes.Worker]:
    """The worker processes: what they hold and how they fare, as of their last heartbeat."""
    return [shapes.Worker.model_validate(one) for one in await aask(history, workers())]


@router.get("/audit")
async def audit(history: History, limit: Limit = DEFAULT_LIMIT) -> list[shapes.AuditEntry]:
    """What people did, newest first."""
    return [shapes.AuditEntry.model_validate(one) for one in await aask(history, audit_log(limit))]


@router.get("/events")
async def events(
    wanted: WantedEvents, history: History, client: Client, visitor: Visiting, limit: Limit = DEFAULT_LIMIT
) -> shapes.Events:
    """The newest events that match, oldest first, and where the live tail goes on."""
    position = await aposition(history)
    found = await run_in_thread_pool(read_events, client, wanted, limit)
    return shapes.Events(
        events=[shapes.Event.of(one, whole=visitor.shows_arguments) for one in found], position=position
    )
