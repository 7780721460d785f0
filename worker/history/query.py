"""Questions to the history: make one, and ask it with `ask(client, …)` or `await aask(client, …)`.

Each question is one script on the server, answered from indexes, as of one moment. It never looks through all messages:
a question that must look at many of them answers in parts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis

from worker.errors import ConfigurationError, ServerUnreachable
from worker.ground.texts import shown
from worker.history.answers import Count, Page, StoredMessage, moment
from worker.history.asked_with import check_kind, check_number, check_text
from worker.history.events import StatusEvent
from worker.history.filters import EventFilter, MessageFilter
from worker.history.lines import subject_names
from worker.history.record import read_record
from worker.history.states import FAILED, FAILING, FOUND_BY_ENDING, MARKS, MessageState
from worker.history.tail import newest_of_tail
from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.scripts import Argument, Script
from worker.server.troubles import trouble

T = TypeVar("T")

PAGE = 50
"""The default number of messages of a page."""

_AT_ONCE = 200
_GIVE_UP_AFTER = 50_000
"""Messages without a match after which a search for events ends, because events have no index of their own."""


_DUE_AT = re.compile("[0-9]{1,13}")

# A server without memory still has enough for the temporary results of a question.
_FIND, _FAILED = Script("find", flags="allow-oom"), Script("failed", flags="allow-oom")
_ONE, _DUE = Script("one"), Script("due")
_DEATHS, _STATES = Script("deaths"), Script("count_states")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A question: a script, its arguments, and the function that reads its answer."""

    script: Script
    arguments: Sequence[Argument]
    read: Callable[[Any], T]


def ask(client: RedisClient, question: Question[T]) -> T:
    """Asks the history.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    try:
        return question.read(question.script.run(client, question.arguments))
    except (redis.RedisError, OSError) as error:
        raise _unreachable(error) from error


async def aask(client: AsyncRedisClient, question: Question[T]) -> T:
    """Asks the history without blocking the running loop.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    try:
        return question.read(await question.script.arun(client, question.arguments))
    except (redis.RedisError, OSError) as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> ServerUnreachable:
    found = trouble(error)
    return type(found)(f"the history cannot be asked: {found}")


# ---------------------------------------------------------------------- messages


def one_message(message_id: str) -> Question[StoredMessage | None]:
    """The stored message, or None. `worker.history.timeline` makes attempts from its events.

    Raises:
        ConfigurationError: The id is no text.
    """
    check_text("message_id", message_id)
    return Question(_ONE, [message_id], lambda found: read_record(message_id, found))


def page_of_messages(
    wanted: MessageFilter, *, limit: int = PAGE, cursor: int | None = None, within: Sequence[str] = ()
) -> Question[Page]:
    """Messages that match, newest first: those that failed last, if only messages that have failed can match.

    Args:
        wanted: The filter.
        limit: The most messages.
        cursor: The cursor of the last page, or None for the newest messages.
        within: States; each message is also in one of these, unless it is empty.

    Raises:
        ConfigurationError: A value is of another kind, or a number is negative.
    """
    check_number("limit", limit)
    arguments = _find_arguments(wanted, limit, cursor, within)
    by_failure = wanted.cause is not None or any(
        states and set(states) <= set(FAILED) for states in (wanted.states, within)
    )

    def read(answer: list[Any]) -> Page:
        below, _, *rest = answer
        found = [read_record(id_.decode(), record) for id_, record in zip(rest[::2], rest[1::2], strict=True)]
        return Page(tuple(one for one in found if one is not None), _cursor(below))

    return Question(_FAILED if by_failure else _FIND, arguments, read)


def newest_failures(*, limit: int = PAGE, cursor: int | None = None) -> Question[Page]:
    """Messages that failed last, without those that have completed, skipped or were cancelled since."""
    return page_of_messages(MessageFilter(states=FAILED), limit=limit, cursor=cursor, within=FAILING)


def count_of_messages(
    wanted: MessageFilter, *, cursor: int | None = None, within: Sequence[str] = ()
) -> Question[Count]:
    """The number of matching messages; or a part of it, if few of very many match.

    Then ask again with the answer's `cursor`, and add the numbers.
    """
    return Question(
        _FIND, _find_arguments(wanted, 0, cursor, within), lambda answer: Count(int(answer[1]), _cursor(answer[0]))
    )


def _find_arguments(wanted: MessageFilter, limit: int, cursor: int | None, within: Sequence[str]) -> list[Argument]:
    check_kind(wanted, MessageFilter)
    if cursor is not None:
        check_number("cursor", cursor)
    named = {"actor": wanted.actor, "queue": wanted.queue, "cause": wanted.cause}
    marks = [f"{name}:{value}" for name, value in named.items() if value is not None]
    subjects = subject_names(wanted.subject)
    groups = [[MARKS[state] for state in states] for states in (wanted.states, within) if states]
    moments = [-1 if one is None else max(0, round(one.timestamp() * 1000)) for one in (wanted.since, wanted.until)]
    arguments: list[Argument] = [limit, -1 if cursor is None else cursor, *moments, wanted.error or ""]
    arguments.append(len(groups))
    for one in (*groups, marks, subjects):
        arguments += [len(one), *one]
    return arguments


def _cursor(below: int) -> int | None:
    return None if below < 0 else below


def all_messages(
    client: RedisClient,
    wanted: MessageFilter,
    *,
    at_once: int = _AT_ONCE,
    within: Sequence[str] = (),
    cursor: int | None = None,
) -> Iterator[StoredMessage]:
    """Every matching message, newest first, read in pages of `at_once`; the rest as in `page_of_messages`.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    while True:
        page = ask(client, page_of_messages(wanted, limit=at_once, cursor=cursor, within=within))
        yield from page.messages
        if (cursor := page.cursor) is None:
            return


def cursor_before(client: RedisClient, wanted: MessageFilter, *, within: Sequence[str] = ()) -> int | None:
    """The cursor of a page that begins with the present first message: messages that come first later are not on it.

    Returns:
        The cursor, or None if no message matches.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    cursor = None
    while True:
        page = ask(client, page_of_messages(wanted, limit=1, cursor=cursor, within=within))
        if (cursor := page.cursor) is None:
            return None
        if page.messages:
            return cursor + 1


async def aall_messages(
    client: AsyncRedisClient, wanted: MessageFilter, *, at_once: int = _AT_ONCE
) -> AsyncIterator[StoredMessage]:
    """Every matching message, newest first, read in pages.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    cursor = None
    while True:
        page = await aask(client, page_of_messages(wanted, limit=at_once, cursor=cursor))
        for message in page.messages:
            yield message
        if (cursor := page.cursor) is None:
            return


def count_messages(client: RedisClient, wanted: MessageFilter, *, within: Sequence[str] = ()) -> int:
    """The number of matching messages; `within` as in `page_of_messages`.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    total, cursor = 0, None
    while True:
        found = ask(client, count_of_messages(wanted, cursor=cursor, within=within))
        total += found.count
        if (cursor := found.cursor) is None:
            return total


def delayed_messages(*, limit: int = PAGE, after: StoredMessage | None = None) -> Question[tuple[StoredMessage, ...]]:
    """Delayed messages, the next due first; `since` is the due time. `after` is the last message of the last page.

    Raises:
        ConfigurationError: The limit is no number from 0.
    """
    check_number("limit", limit)

    def read(answer: list[Any]) -> tuple[StoredMessage, ...]:
        found = [read_record(id_.decode(), record) for id_, _, record in answer]
        return tuple(one for one in found if one is not None)

    last: list[Argument] = ["", -1] if after is None else [after.id, round(after.since.timestamp() * 1000)]
    return Question(_DUE, [limit, *last], read)


def cursor_after(message: StoredMessage) -> str:
    """The cursor of the page of delayed messages after this one."""
    return f"{round(message.since.timestamp() * 1000)}/{message.id}"


def last_of_page(cursor: str) -> StoredMessage:
    """The message that a cursor names, with as much of it as the next page needs: it may not be delayed any more.

    Raises:
        ConfigurationError: It is no cursor of a page of delayed messages.
    """
    due, _, message_id = cursor.partition("/")
    if not (message_id and _DUE_AT.fullmatch(due)):
        raise ConfigurationError(f"cursor {shown(cursor)}: use that of the last page, or leave it out to begin anew")
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


def running_messages(*, limit: int = PAGE, cursor: int | None = None) -> Question[Page]:
    """Running messages, the last enqueued first; `worker.history.timeline` has the process and the begin of each."""
    return page_of_messages(MessageFilter(states=(MessageState.RUNNING,)), limit=limit, cursor=cursor)


def state_counts() -> Question[dict[str, int]]:
    """The number of messages in each state; states without messages are left out."""

    def read(answer: list[Any]) -> dict[str, int]:
        counts = {state.decode(): int(number) for state, number in zip(answer[::2], answer[1::2], strict=True)}
        return {state: number for state, number in counts.items() if number}

    return Question(_STATES, [], read)


def dead_by_cause() -> Question[dict[str, int]]:
    """Dead letters by cause (an error's type, `lost` with their workers, or `unknown`), the most frequent first."""

    def read(answer: list[Any]) -> dict[str, int]:
        counts = {cause.decode(): int(number) for cause, number in zip(answer[::2], answer[1::2], strict=True)}
        return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))

    return Question(_DEATHS, [], read)


# ---------------------------------------------------------------------- events


def read_events(client: RedisClient, wanted: EventFilter, limit: int) -> list[StatusEvent]:
    """The newest `limit` events that match, oldest first.

    Raises:
        ConfigurationError: A value is of another kind, or the limit is negative.
        ServerUnreachable: The server did not answer, or refused.
    """
    check_kind(wanted, EventFilter)
    check_number("limit", limit)
    # An old message may have new events: they are in the tail, which does not reach far back.
    newest = [] if wanted.message_id is not None else newest_of_tail(client, wanted, limit)
    found = {event.id: event for event in newest}
    without = 0
    for message in _candidates(client, wanted, limit) if len(found) < limit else ():
        matching = {event.id: event for event in reversed(message.events) if wanted.matches(event)}
        found |= matching
        without = 0 if matching else without + 1
        if len(found) >= limit or without >= _GIVE_UP_AFTER:
            break
    newest_first = list(found.values())
    if wanted.message_id is None:
        # Events of the same millisecond stay in the order of their messages.
        newest_first.sort(key=lambda event: event.time, reverse=True)
    # Events of one message are in the order of storing, because clocks of processes differ.
    return newest_first[:limit][::-1]


def _candidates(client: RedisClient, wanted: EventFilter, limit: int) -> Iterator[StoredMessage]:
    if wanted.message_id is not None:
        one = ask(client, one_message(wanted.message_id))
        if one is not None:
            yield one
        return
    states = (wanted.state.value,) if wanted.state in FOUND_BY_ENDING else ()
    yield from all_messages(
        client,
        MessageFilter(
            states=states, actor=wanted.actor, queue=wanted.queue, subject=wanted.subject, error=wanted.error
        ),
        at_once=max(PAGE, min(limit, _AT_ONCE)),
    )
