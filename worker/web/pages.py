"""The pages for people, made from questions to the history.

They are thin: each handler asks and renders. A page's script asks for the same page again every few seconds, as a
fragment. No page changes anything: actions go through the JSON API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response

from worker.errors import ConfigurationError
from worker.history.answers import Count, Page, StoredMessage, WorkerInfo
from worker.history.events import StatusEvent, WorkerId
from worker.history.filters import (
    EVENT_FIELDS,
    MESSAGE_FIELDS,
    MessageFilter,
    read_event_filter,
    read_message_filter,
)
from worker.history.overview import audit_log, queues, windows, workers
from worker.history.query import (
    PAGE,
    aask,
    count_of_messages,
    cursor_after,
    dead_by_cause,
    delayed_messages,
    last_of_page,
    newest_failures,
    one_message,
    page_of_messages,
    running_messages,
    state_counts,
)
from worker.history.states import MessageState
from worker.history.timeline import attempts_of, requests_of
from worker.loops.thread_pool import run_in_thread_pool
from worker.server.async_client import AsyncRedisClient
from worker.web import api, bars
from worker.web.asked import Asked
from worker.web.charts import charts, pace
from worker.web.choice import ActorChoice, actors_to_choose
from worker.web.dependencies import Client, Held, History, Visiting
from worker.web.page_route import EVERY, PageRoute
from worker.web.rates import busiest
from worker.web.rendering import FRAGMENT, render

_HOUR = timedelta(hours=1)
_GROUPS, _AUDIT = 50, 200
_FAILURES, _FAILURE_STEPS = 7, 10


router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
async def overview(request: Request, history: History, held: Held, visitor: Visiting) -> Response:
    """The whole system at a glance."""
    now = datetime.now(UTC)
    minutes = await aask(history, windows(_HOUR))
    waiting = await aask(history, queues())
    alive = await aask(history, workers())
    found = await busiest(held.client, _HOUR)
    asks_whole = FRAGMENT not in request.headers and visitor.may_act
    choice = await run_in_thread_pool(actors_to_choose, held.settings) if asks_whole else ActorChoice()
    due = await aask(history, delayed_messages(limit=1))
    failures = await _failures(history)
    causes = await aask(history, dead_by_cause())
    return render(
        request,
        visitor,
        "overview.html",
        refresh=EVERY,
        counts=await _counts(history),
        pace=pace(minutes, now),
        charts=charts(minutes, waiting, now),
        actors=found.rates,
        actors_left_out=found.left_out,
        choice=choice,
        queues=waiting,
        workers=_alive_first(alive),
        room=sum(one.threads + one.concurrency for one in alive if one.alive),
        oldest=max((one.oldest_seconds for one in waiting if one.oldest_seconds is not None), default=None),
        next_due=due[0].since if due else None,
        causes=causes,
        failures=failures,
    )


async def _failures(history: AsyncRedisClient) -> list[StoredMessage]:
    """The newest failures, also if many that failed since have completed."""
    found: list[StoredMessage] = []
    cursor = None
    for _ in range(_FAILURE_STEPS):
        page = await aask(history, newest_failures(limit=_FAILURES - len(found), cursor=cursor))
        found += page.messages
        cursor = page.cursor
        if cursor is None or len(found) == _FAILURES:
            break
    return found


@router.get("/messages")
async def messages(request: Request, history: History, client: Client, visitor: Visiting) -> Response:
    """The messages that match the filter in the URL."""
    asked = Asked.read(MESSAGE_FIELDS, request.query_params)
    cursor = _cursor(request)
    complaint, page, count = "", Page((), None), Count(0, None)
    try:
        wanted = read_message_filter(asked.given)
    except ConfigurationError as error:
        complaint = str(error)
    else:
        page = await aask(history, page_of_messages(wanted, cursor=cursor))
        count = await aask(history, count_of_messages(wanted))
    query = asked.query()
    causes = await aask(history, dead_by_cause())
    return render(
        request,
        visitor,
        "messages.html",
        code=422 if complaint else 200,
        refresh=EVERY if cursor is None and not complaint else None,
        counts=await _counts(history),
        asked=asked,
        is_first=cursor is None,
        filter_query=query,
        older=f"/messages?{query}{'&' if query else ''}cursor={page.cursor}",
        complaint=complaint,
        page=page,
        count=count,
        known_actors=(await busiest(client, 24 * _HOUR)).names,
        known_queues=_names(one.name for one in await aask(history, queues())),
        known_errors=_names(causes),
    )


@router.get("/messages/{message_id:path}")  # an id may hold a slash
async def message(request: Request, history: History, visitor: Visiting, message_id: str) -> Response:
    """One message, with every attempt."""
    found = await aask(history, one_message(message_id))
    counts = await _counts(history)
    if found is None:
        detail = "No such message is kept: it never existed, or it was purged, or it ended long ago."
        return render(request, visitor, "missing.html", code=404, detail=detail, counts=counts)
    attempts = attempts_of(found)
    return render(
        request,
        visitor,
        "message.html",
        refresh=EVERY,
        counts=counts,
        message=found,
        attempts=attempts,
        newest=attempts[-1] if attempts else None,
        drawing=bars.draw(found, datetime.now(UTC)),
        requests=requests_of(found),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """A running message with its process, its begin and its progress."""

    message: StoredMessage
    number: int
    started: datetime | None
    worker: WorkerId | None
    heartbeat: datetime | None
    progress: StatusEvent | None


@router.get("/running")
async def running(request: Request, history: History, visitor: Visiting) -> Response:
    """The running messages."""
    page = await aask(history, running_messages(cursor=_cursor(request)))
    heard_of = {(one.host, one.pid): one.heartbeat for one in await aask(history, workers())}
    return render(
        request,
        visitor,
        "running.html",
        refresh=EVERY,
        counts=await _counts(history),
        runs=[_run(one, heard_of) for one in page.messages],
        cursor=page.cursor,
    )


def _run(found: StoredMessage, heard_of: dict[tuple[str, int], datetime]) -> _Run:
    last = next(reversed(attempts_of(found)), None)
    if last is None:
        return _Run(found, found.attempts, None, None, None, None)
    heartbeat = heard_of.get((last.worker.host, last.worker.pid)) if last.worker is not None else None
    return _Run(found, last.number, last.started, last.worker, heartbeat, last.progress)


@router.get("/delayed")
async def delayed(request: Request, history: History, visitor: Visiting) -> Response:
    """The delayed messages, the next due first."""
    cursor = request.query_params.get("cursor", "")
    after = last_of_page(cursor) if re.fullmatch("[0-9]{1,13}/.{1,200}", cursor) else None
    found = await aask(history, delayed_messages(after=after))
    last = found[-1] if len(found) == PAGE else None
    return render(
        request,
        visitor,
        "delayed.html",
        refresh=EVERY,
        counts=await _counts(history),
        messages=found,
        later=cursor_after(last) if last is not None else "",
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """The dead letters of one cause: their number, the newest of them, and the filter that finds them."""

    cause: str
    count: int
    newest: StoredMessage | None
    asked: Asked


@router.get("/dead")
async def dead(request: Request, history: History, visitor: Visiting) -> Response:
    """Dead letters by their cause."""
    causes = await aask(history, dead_by_cause())
    groups = [await _group(history, cause, number) for cause, number in list(causes.items())[:_GROUPS]]
    counts = await _counts(history)
    left_out = list(causes.values())[_GROUPS:]
    return render(request, visitor, "dead.html", refresh=EVERY, counts=counts, groups=groups, left_out=left_out)


async def _group(history: AsyncRedisClient, cause: str, number: int) -> _Group:
    asked = Asked(MESSAGE_FIELDS, {"state": (MessageState.DEAD,), "cause": (cause,)})
    page = await aask(history, page_of_messages(MessageFilter(states=(MessageState.DEAD,), cause=cause), limit=1))
    return _Group(cause, number, page.messages[0] if page.messages else None, asked)


@router.get("/workers")
async def worker_processes(request: Request, history: History, visitor: Visiting) -> Response:
    """The worker processes, with their attempts and their problems."""
    found = await aask(history, workers())
    counts = await _counts(history)
    return render(request, visitor, "workers.html", refresh=EVERY, counts=counts, workers=_alive_first(found))


@router.get("/queues")
async def queues_by_name(request: Request, history: History, visitor: Visiting) -> Response:
    """The queues, with buttons to pause and resume."""
    found = await aask(history, queues())
    counts = await _counts(history)
    return render(request, visitor, "queues.html", refresh=EVERY, counts=counts, queues=found)


async def repositories(request: Request, history: History, visitor: Visiting) -> Response:
    """The repositories in the search index, with their stored files and their last sync."""
    assert api.repositories is not None  # noqa: S101 - the page exists only with it
    found, complaint = await api.repositories.overview()
    counts = await _counts(history)
    known = {"counts": counts, "repositories": found, "complaint": complaint}
    return render(request, visitor, "repositories.html", refresh=EVERY, **known)


if api.repositories is not None:
    router.get("/repositories")(repositories)


@router.get("/live")
async def live(request: Request, history: History, visitor: Visiting) -> Response:
    """Events as they happen: the page's script follows the live tail."""
    asked = Asked.read(EVENT_FIELDS, request.query_params)
    complaint = ""
    try:
        read_event_filter(asked.given)
    except ConfigurationError as error:
        complaint = str(error)
    return render(
        request,
        visitor,
        "live.html",
        code=422 if complaint else 200,
        counts=await _counts(history),
        asked=asked,
        filter_query=asked.query(),
        complaint=complaint,
    )


@router.get("/audit")
async def audit(request: Request, history: History, visitor: Visiting) -> Response:
    """The actions of people."""
    entries = await aask(history, audit_log(_AUDIT))
    counts = await _counts(history)
    return render(request, visitor, "audit.html", refresh=EVERY, counts=counts, entries=entries, most=_AUDIT)


@router.get("/login")
async def login(request: Request, visitor: Visiting) -> Response:
    """The page for logging in with a token."""
    asked = request.query_params
    return render(request, visitor, "login.html", next=asked.get("next", ""), failed="failed" in asked)


async def _counts(history: AsyncRedisClient) -> dict[str, int]:
    """The number of messages in each state, for the menu of every page."""
    return await aask(history, state_counts())


def _cursor(request: Request) -> int | None:
    """The cursor in the URL, or None if it is missing or cannot be read."""
    given = request.query_params.get("cursor", "")
    return int(given) if re.fullmatch("[0-9]{1,15}", given) else None


def _names(found: Iterable[str]) -> list[str]:
    return sorted({one for one in found if one})


def _alive_first(found: Iterable[WorkerInfo]) -> list[WorkerInfo]:
    """Those that are alive first, and those that have stopped last."""
    return sorted(found, key=lambda one: (not one.alive, one.stopped is not None, one.name))
