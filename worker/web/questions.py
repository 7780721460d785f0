"""The questions as JSON; `worker.history` answers them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Response

from worker.history import as_json, lists_as_json
from worker.history.answers import Count
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import audit_log, queues, windows, workers
from worker.history.query import (
    aask,
    count_of_messages,
    cursor_after,
    dead_by_cause,
    delayed_messages,
    last_of_page,
    one_message,
    page_of_messages,
    read_events,
    running_messages,
    state_counts,
)
from worker.history.tail import aposition
from worker.loops.thread_pool import run_in_thread_pool
from worker.web import shapes
from worker.web.answers import shown_to, told
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
from worker.web.rates import all_rates

router = APIRouter(tags=["questions"])

_MOST_STEPS = 20
"""Steps of a count: each looks at some thousand messages, or at all of them where none has to be looked at."""

Wanted = Annotated[MessageFilter, Depends(message_filter)]
WantedEvents = Annotated[EventFilter, Depends(event_filter)]
MessageId = Annotated[str, Path(min_length=1, max_length=200, description="The message's id.")]


@router.get("/session")
async def session(visitor: Visiting) -> shapes.Session:
    """The visitor, and the visitor's rights."""
    return shapes.Session.model_validate(visitor)


@router.get("/messages", response_model=lists_as_json.MessagePage)
async def messages(
    wanted: Wanted, history: History, visitor: Visiting, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """Matching messages, newest first; those that failed last, if only messages are asked for that have failed.

    A page may be short although there are more: ask again with its cursor.
    """
    page = await aask(history, page_of_messages(wanted, limit=limit, cursor=cursor))
    return told(lists_as_json.MessagePage(as_json.messages_of(page.messages, shown_to(visitor)), page.cursor))


@router.get("/messages/count", response_model=Count)
async def count(wanted: Wanted, history: History, cursor: Cursor = None) -> Response:
    """The number of matching messages."""
    total = 0
    for _ in range(_MOST_STEPS):
        found = await aask(history, count_of_messages(wanted, cursor=cursor))
        total, cursor = total + found.count, found.cursor
        if cursor is None:
            break
    return told(Count(total, cursor))


@router.get("/messages/{message_id:path}", response_model=as_json.MessageDetail, responses=NOT_FOUND)
async def message(message_id: MessageId, history: History, visitor: Visiting) -> Response:
    """One message with every attempt: events, durations, waits, progress, worker, errors."""
    found = await aask(history, one_message(message_id))
    if found is None:
        raise HTTPException(404, f"nothing is kept of a message {message_id}")
    return told(as_json.MessageDetail.of(found, shown_to(visitor)))


@router.get("/running", response_model=lists_as_json.RunningPage)
async def running(history: History, visitor: Visiting, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """Messages that run: the worker and its last heartbeat, the start, and the progress."""
    page, known = await asyncio.gather(
        aask(history, running_messages(limit=limit, cursor=cursor)), aask(history, workers())
    )
    shown = shown_to(visitor)
    running_now = [as_json.RunningMessage.at(one, known, shown) for one in page.messages]
    return told(lists_as_json.RunningPage(running_now, page.cursor))


@router.get("/delayed", response_model=lists_as_json.DelayedPage)
async def delayed(
    history: History,
    visitor: Visiting,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9]{1,13}/.+$", max_length=300, description="The cursor of the last page.")
    ] = None,
) -> Response:
    """Delayed messages, the next to be due first; `since` is the time when each is due."""
    after = None if cursor is None else last_of_page(cursor)
    found = await aask(history, delayed_messages(limit=limit, after=after))
    following = cursor_after(found[-1]) if len(found) == limit else None
    return told(lists_as_json.DelayedPage(as_json.messages_of(found, shown_to(visitor)), following))


@router.get("/states", response_model=lists_as_json.States)
async def states(history: History) -> Response:
    """The number of messages in each state."""
    counts = await aask(history, state_counts())
    return told(lists_as_json.States.of(counts))


@router.get("/dead", response_model=lists_as_json.DeadByCause)
async def dead(history: History) -> Response:
    """The number of dead letters by cause: an error's type, `lost` (their workers died) or `unknown`."""
    return told(lists_as_json.DeadByCause(await aask(history, dead_by_cause())))


@router.get("/actors", response_model=lists_as_json.Actors)
async def actors(client: Client, over: Over = "1h") -> Response:
    """The rates of each actor over a time that ends now, the busiest first."""
    return await all_rates(client, read_over(over))


@router.get("/windows", response_model=lists_as_json.Windows)
async def windows_over_time(history: History, over: Over = "1h") -> Response:
    """The counts of each minute, or of each hour if the time is longer than two hours; the oldest first."""
    return told(lists_as_json.Windows(await aask(history, windows(read_over(over)))))


@router.get("/queues", response_model=lists_as_json.Queues)
async def queues_by_name(history: History) -> Response:
    """The queues: the messages that wait, the wait of the oldest, and whether they are paused."""
    return told(lists_as_json.Queues(await aask(history, queues())))


@router.get("/workers", response_model=lists_as_json.Workers)
async def worker_processes(history: History) -> Response:
    """The worker processes: their attempts and their troubles, as of their last heartbeat."""
    return told(lists_as_json.Workers(await aask(history, workers())))


@router.get("/audit", response_model=lists_as_json.AuditLog)
async def audit(history: History, limit: Limit = DEFAULT_LIMIT) -> Response:
    """The actions of people, newest first."""
    return told(lists_as_json.AuditLog(await aask(history, audit_log(limit))))


@router.get("/events", response_model=lists_as_json.EventPage)
async def events(
    wanted: WantedEvents, history: History, client: Client, visitor: Visiting, limit: Limit = DEFAULT_LIMIT
) -> Response:
    """The newest events that match, oldest first, and the position after which the live tail goes on."""
    position = await aposition(history)
    found = await run_in_thread_pool(read_events, client, wanted, limit)
    return told(lists_as_json.EventPage(as_json.events_of(found, shown_to(visitor)), position))
