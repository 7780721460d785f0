"""`worker messages`, `running` and `delayed`: lists of messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated

import typer

from worker.cli.options import AsJson, Limit, WithArguments, filters_messages, open_server
from worker.cli.output import (
    MESSAGE_HEADINGS,
    about,
    ago,
    local_time,
    message_row,
    print_aside,
    print_json,
    print_table,
    print_text,
    progress_of,
)
from worker.cli.terminal import Row
from worker.history import as_json as json_of
from worker.history import lists_as_json
from worker.history.answers import Count, Page, StoredMessage, WorkerInfo
from worker.history.filters import MessageFilter
from worker.history.overview import workers
from worker.history.query import (
    PAGE,
    ask,
    count_messages,
    cursor_after,
    delayed_messages,
    last_of_page,
    page_of_messages,
)
from worker.history.states import MessageState
from worker.history.timeline import TimelineAttempt, attempts_of
from worker.server.client import RedisClient

Cursor = Annotated[int | None, typer.Option(min=0, help="Continue after the last page.")]

_AT_ONCE = 500


@filters_messages
def messages(
    wanted: MessageFilter,
    limit: Limit = PAGE,
    cursor: Cursor = None,
    count: Annotated[bool, typer.Option("--count", help="Only print their number.")] = False,
    arguments: WithArguments = False,
    as_json: AsJson = False,
) -> None:
    """List messages, newest first."""
    client = open_server()
    if count:
        number = count_messages(client, wanted)
        print_json(Count(number, None)) if as_json else print_text(str(number))
        return
    page = read_page(client, wanted, limit, cursor)
    if as_json:
        shown = json_of.Shown(arguments=arguments, tracebacks=True)
        print_json(lists_as_json.MessagePage(json_of.messages_of(page.messages, shown), page.cursor))
        return
    headings, more = (*MESSAGE_HEADINGS, "arguments") if arguments else MESSAGE_HEADINGS, arguments
    print_table(headings, [[*message_row(one), *([one.arguments] if more else [])] for one in page.messages])
    tell_of_more(page.cursor)


def running(limit: Limit = PAGE, cursor: Cursor = None, as_json: AsJson = False) -> None:
    """List running messages, the last enqueued first."""
    client = open_server()
    page = read_page(client, MessageFilter(states=(MessageState.RUNNING,)), limit, cursor)
    if as_json:
        alive = ask(client, workers())
        print_json(lists_as_json.RunningPage(running_as_json(page.messages, alive), page.cursor))
        return
    print_table(RUNNING_HEADINGS, [running_row(one) for one in page.messages])
    tell_of_more(page.cursor)


def delayed(
    limit: Limit = PAGE,
    cursor: Annotated[str | None, typer.Option(help="Continue after the last page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List delayed messages, the next due first."""
    after = None if cursor is None else last_of_page(cursor)
    found = list(islice(_all_delayed(open_server(), limit, after), limit))
    following = cursor_after(found[-1]) if len(found) == limit else None
    if as_json:
        print_json(lists_as_json.DelayedPage(json_of.messages_of(found, json_of.Shown()), following))
        return
    headings = ("message", "due", "in", "actor", "queue", "attempts", "subject", "last error")
    print_table(headings, [_delayed_row(one) for one in found])
    tell_of_more(following)


def read_page(
    client: RedisClient, wanted: MessageFilter, limit: int, cursor: int | None = None, within: Sequence[str] = ()
) -> Page:
    """A page of messages, filled up to its limit from several answers; `within` as in `page_of_messages`.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    found: list[StoredMessage] = []
    while True:
        at_once = min(_AT_ONCE, limit - len(found))
        page = ask(client, page_of_messages(wanted, limit=at_once, cursor=cursor, within=within))
        found += page.messages
        cursor = page.cursor
        if cursor is None or len(found) >= limit:
            return Page(tuple(found), cursor)


def _all_delayed(client: RedisClient, limit: int, last: StoredMessage | None) -> Iterator[StoredMessage]:
    while page := ask(client, delayed_messages(limit=min(_AT_ONCE, limit), after=last)):
        yield from page
        last = page[-1]


def tell_of_more(cursor: int | str | None) -> None:
    """Tells how the next page is asked for, if there may be one."""
    if cursor is not None:
        print_aside(f"there may be more: --cursor {cursor}")


RUNNING_HEADINGS = ("message", "actor", "attempt", "for", "worker", "progress", "subject")


def running_as_json(messages: Iterable[StoredMessage], known: Sequence[WorkerInfo]) -> list[json_of.RunningMessage]:
    """Messages that run on one of these workers, for `--json`."""
    return [json_of.RunningMessage.at(one, known, json_of.Shown(tracebacks=True)) for one in messages]


def _newest_attempt(message: StoredMessage) -> TimelineAttempt | None:
    attempts = attempts_of(message)
    return attempts[-1] if attempts else None


def running_row(message: StoredMessage) -> Row:
    """A running message, with its attempt, as the cells of a table."""
    last = _newest_attempt(message)
    worker = last.worker if last is not None else None
    return [
        message.id,
        message.actor,
        str(message.attempts),
        ago(last.started if last is not None else message.since),
        "" if worker is None else f"{worker.host}:{worker.pid}",
        progress_of(last.progress if last is not None else None),
        about(message.subject),
    ]


def _delayed_row(message: StoredMessage) -> Row:
    due = ago(message.since)
    return [
        message.id,
        local_time(message.since),
        due.removeprefix("-") if due.startswith("-") else "now",
        message.actor,
        message.queue,
        str(message.attempts),
        about(message.subject),
        message.waits_for or message.last_error,
    ]
