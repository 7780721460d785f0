"""Questions to the history, and how they are asked: `ask(client, …)`, or `await aask(client, …)`.

Each question is one script on the server, answered from indexes as of one moment. It never looks through all messages:
one that has to look at many of them answers in parts.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import redis
from redis import asyncio as redis_asyncio

from worker.errors import ServerUnreachable
from worker.history.answers import (
    ActorRates,
    AuditEntry,
    Count,
    HeldAttempt,
    Page,
    Pause,
    QueueInfo,
    StoredMessage,
    Window,
    WorkerInfo,
    moment,
    read_record,
)
from worker.history.events import StatusEvent
from worker.history.filters import MARKS, EventFilter, MessageFilter
from worker.history.histogram import percentiles
from worker.history.lines import subject_names
from worker.history.tail import newest_of_tail
from worker.scripts import RECORDS, Argument, Script

T = TypeVar("T")

PAGE = 50
"""Messages of a page, unless another number is asked for."""

LONGEST = timedelta(days=366)
"""The longest time of which rates are asked: the server looks at each hour of it."""

_ENDINGS = ("completed", "skipped", "failed", "cancelled", "lost")
_AT_ONCE = 200
_GIVE_UP_AFTER = 50_000
"""Messages without a match after which nobody looks further back for events: those have no index of their own."""


def _script(name: str, *, flags: str = "") -> Script:
    return Script(RECORDS, ("worker.history", f"{name}.lua"), flags=flags)


# A server without memory still has the little that is worked out while it looks.
_FIND = _script("find", flags="allow-oom")
_ONE, _DUE = _script("one"), _script("due")
_COUNTERS, _QUEUES, _WORKERS, _DEATHS = _script("counters"), _script("queues"), _script("workers"), _script("deaths")
_STATES, _AUDIT = _script("states"), _script("audit")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """Something that can be asked: a script, its arguments, and how its answer is read."""

    script: Script
    arguments: Sequence[Argument]
    read: Callable[[Any], T]


def ask(client: redis.Redis, question: Question[T]) -> T:
    """Asks the history.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    try:
        return question.read(question.script.run(client, question.arguments))
    except (redis.RedisError, OSError) as error:
        raise _unreachable(error) from error


async def aask(client: redis_asyncio.Redis, question: Question[T]) -> T:
    """Asks the history without blocking the running loop.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    try:
        return question.read(await question.script.arun(client, question.arguments))
    except (redis.RedisError, OSError) as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> ServerUnreachable:
    return ServerUnreachable(f"the history cannot be asked: {' '.join(str(error).split()) or type(error).__name__}")


# ---------------------------------------------------------------------- messages


def one_message(message_id: str) -> Question[StoredMessage | None]:
    """What is kept of a message; `None` if nothing is. `worker.history.timeline` makes attempts of its events."""
    return Question(_ONE, [message_id], lambda found: read_record(message_id, found))


def page_of_messages(
    wanted: MessageFilter, *, limit: int = PAGE, cursor: int | None = None, within: Sequence[str] = ()
) -> Question[Page]:
    """Messages that match, newest first.

    Args:
        wanted: Which.
        limit: How many at most.
        cursor: The last page's; `None`: from the newest on.
        within: States of a message; each is in one of these besides.
    """

    def read(answer: list[Any]) -> Page:
        below, _, *rest = answer
        found = [read_record(id_.decode(), record) for id_, record in zip(rest[::2], rest[1::2], strict=True)]
        return Page(tuple(one for one in found if one is not None), _cursor(below))

    return Question(_FIND, _find_arguments(wanted, limit, cursor, within), read)


def count_of_messages(
    wanted: MessageFilter, *, cursor: int | None = None, within: Sequence[str] = ()
) -> Question[Count]:
    """How many messages match; where few of very many do, only of some: ask on with the answer's `cursor`, and add."""
    return Question(
        _FIND, _find_arguments(wanted, 0, cursor, within), lambda answer: Count(int(answer[1]), _cursor(answer[0]))
    )


def _find_arguments(wanted: MessageFilter, limit: int, cursor: int | None, within: Sequence[str]) -> list[Argument]:
    named = {"actor": wanted.actor, "queue": wanted.queue, "died": wanted.cause}
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
    client: redis.Redis, wanted: MessageFilter, *, at_once: int = _AT_ONCE, within: Sequence[str] = ()
) -> Iterator[StoredMessage]:
    """Every message that matches, newest first, read in pages of `at_once`; `within` as of a page.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    cursor = None
    while True:
        page = ask(client, page_of_messages(wanted, limit=at_once, cursor=cursor, within=within))
        yield from page.messages
        if (cursor := page.cursor) is None:
            return


async def aall_messages(
    client: redis_asyncio.Redis, wanted: MessageFilter, *, at_once: int = _AT_ONCE
) -> AsyncIterator[StoredMessage]:
    """Every message that matches, newest first, read in pages.

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


def count_messages(client: redis.Redis, wanted: MessageFilter, *, within: Sequence[str] = ()) -> int:
    """How many messages match; `within` as of a page.

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
    """What is delayed, the next to be due first; `since` of each is when it is due. `after` is the last one known."""

    def read(answer: list[Any]) -> tuple[StoredMessage, ...]:
        found = [read_record(id_.decode(), record) for id_, _, record in answer]
        return tuple(one for one in found if one is not None)

    last: list[Argument] = ["", -1] if after is None else [after.id, round(after.since.timestamp() * 1000)]
    return Question(_DUE, [limit, *last], read)


def running_messages(*, limit: int = PAGE, cursor: int | None = None) -> Question[Page]:
    """What runs now, that enqueued last first; where and since when, `worker.history.timeline` tells."""
    return page_of_messages(MessageFilter(states=("running",)), limit=limit, cursor=cursor)


def state_counts() -> Question[dict[str, int]]:
    """How many messages are in each state; states without any are left out."""

    def read(answer: list[Any]) -> dict[str, int]:
        counts = {state.decode(): int(number) for state, number in zip(answer[::2], answer[1::2], strict=True)}
        return {state: number for state, number in counts.items() if number}

    return Question(_STATES, [], read)


def dead_by_cause() -> Question[dict[str, int]]:
    """Dead letters by the type of the error they died of (`lost`: their workers died), the most frequent first."""

    def read(answer: list[Any]) -> dict[str, int]:
        counts = {cause.decode(): int(number) for cause, number in zip(answer[::2], answer[1::2], strict=True)}
        return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))

    return Question(_DEATHS, [], read)


# ---------------------------------------------------------------------- events


def read_events(client: redis.Redis, wanted: EventFilter, limit: int) -> list[StatusEvent]:
    """The newest `limit` events that match, oldest first.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
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
        # Those of the same millisecond stay in the order of their messages.
        newest_first.sort(key=lambda event: event.time, reverse=True)
    # Those of one message are in the order in which they were stored: clocks of processes differ.
    return newest_first[:limit][::-1]


_FOUND_BY = {
    "completed": ("completed",),
    "skipped": ("skipped",),
    "failed": ("failed",),
    "lost": ("lost",),
}


def _candidates(client: redis.Redis, wanted: EventFilter, limit: int) -> Iterator[StoredMessage]:
    if wanted.message_id is not None:
        one = ask(client, one_message(wanted.message_id))
        if one is not None:
            yield one
        return
    states = _FOUND_BY.get(wanted.state.value, ()) if wanted.state is not None else ()
    yield from all_messages(
        client,
        MessageFilter(
            states=states, actor=wanted.actor, queue=wanted.queue, subject=wanted.subject, error=wanted.error
        ),
        at_once=max(PAGE, min(limit, _AT_ONCE)),
    )


# ---------------------------------------------------------------------- actors, queues, workers


def actor_rates(over: timedelta) -> Question[tuple[ActorRates, ...]]:
    """How each actor fared over a time that ends now, the busiest first; longer than two hours, from a full hour on."""

    def read(answer: list[Any]) -> tuple[ActorRates, ...]:
        now, _, (start, fields) = answer
        seconds = max(1.0, (now - start) / 1000)
        by_actor: dict[str, dict[str, int]] = defaultdict(dict)
        for field, number in zip(fields[::2], fields[1::2], strict=True):
            actor, _, what = field.decode().partition("\t")
            by_actor[actor][what] = int(number)
        rates = [_rates(actor, counts, seconds) for actor, counts in by_actor.items()]
        return tuple(sorted(rates, key=lambda one: (-one.per_second, one.actor)))

    return Question(_COUNTERS, [_milliseconds(over), ""], read)


def windows(over: timedelta) -> Question[tuple[Window, ...]]:
    """What happened in each minute (longer than two hours: in each hour), the oldest first; the last one goes on."""

    def read(answer: list[Any]) -> tuple[Window, ...]:
        _, length, *found = answer
        return tuple(_window(moment(start), length, fields) for start, fields in found)

    return Question(_COUNTERS, [_milliseconds(over), "t"], read)


def _milliseconds(over: timedelta) -> int:
    return round(min(over, LONGEST).total_seconds() * 1000)


def _window(start: datetime, length: int, fields: bytes) -> Window:
    words = fields.decode().split()
    counts = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    durations, waits = _histograms(counts)
    return Window(
        start=start,
        length=timedelta(milliseconds=length),
        ended={state: counts[state] for state in _ENDINGS if state in counts},
        duration=percentiles(durations),
        wait=percentiles(waits),
    )


def _rates(actor: str, counts: dict[str, int], seconds: float) -> ActorRates:
    ended = {state: counts[state] for state in _ENDINGS if state in counts}
    total = sum(ended.values())
    durations, waits = _histograms(counts)
    return ActorRates(
        actor=actor,
        ended=ended,
        per_second=total / seconds,
        error_share=(ended.get("failed", 0) + ended.get("lost", 0)) / total if total else 0.0,
        duration=percentiles(durations),
        wait=percentiles(waits),
        blocked_ms=counts.get("blocked", 0),
    )


def _histograms(counts: dict[str, int]) -> tuple[dict[int, int], dict[int, int]]:
    """Of durations and of waits."""
    found: dict[str, dict[int, int]] = {"d": {}, "q": {}}
    for what, number in counts.items():
        place = _bucket(what)
        if place is not None:
            found[place[0]][place[1]] = number
    return found["d"], found["q"]


@functools.lru_cache(maxsize=1_000)
def _bucket(what: str) -> tuple[str, int] | None:
    """The histogram and the bucket that a counter is; `None` if it is another."""
    # A week has the same few names a hundred times.
    return (what[0], int(what[1:])) if what[0] in "dq" and what[1:].isdigit() else None


def queues() -> Question[tuple[QueueInfo, ...]]:
    """The queues, by name: how much waits there, for how long the oldest, and whether they are paused."""

    def read(answer: list[Any]) -> tuple[QueueInfo, ...]:
        now, *found = answer
        return tuple(sorted((_queue(now, one) for one in found), key=lambda queue: queue.name))

    return Question(_QUEUES, [], read)


def _queue(now: int, described: list[Any]) -> QueueInfo:
    name, queued, delayed, running, oldest, paused = described
    pause = json.loads(paused) if paused else None
    return QueueInfo(
        name=name.decode(),
        queued=queued,
        delayed=delayed,
        running=running,
        oldest=None if oldest < 0 else timedelta(milliseconds=max(0, now - oldest)),
        pause=pause and Pause(pause["by"], moment(pause["at"])),
    )


def workers() -> Question[tuple[WorkerInfo, ...]]:
    """The worker processes, by name: what they hold and how they fare, as of their last heartbeat."""

    def read(answer: list[Any]) -> tuple[WorkerInfo, ...]:
        now, *found = answer
        return tuple(sorted((_worker(now, *one) for one in found), key=lambda worker: worker.name))

    return Question(_WORKERS, [], read)


def _worker(now: int, name: bytes, expires: int, known: bytes) -> WorkerInfo:
    about: dict[str, Any] = json.loads(known)
    host, pid, *_ = name.decode().rsplit(":", 2)
    attempts = [HeldAttempt(id_, actor, number, moment(at)) for id_, actor, number, at in about.get("attempts", ())]
    return WorkerInfo(
        name=name.decode(),
        host=about.get("host", host),
        pid=int(about.get("pid", pid)),
        alive=expires >= now,
        started=moment(about["at"] * 1000) if "at" in about else None,
        heartbeat=moment(expires - about.get("lease_ms", 0)),
        queues=tuple(about.get("queues", ())),
        threads=about.get("threads", 0),
        attempts=tuple(attempts),
        ahead=about.get("ahead", 0),
        pool_busy=about.get("pool_busy", 0),
        pool_size=about.get("pool_size", 0),
        pool_waiting=about.get("pool_waiting", 0),
        overruns=about.get("overruns", 0),
        events_dropped=about.get("events_dropped", 0),
        ends_waiting=about.get("ends_waiting", 0),
        errors=tuple(about.get("errors", ())),
    )


def audit_log(limit: int = PAGE) -> Question[tuple[AuditEntry, ...]]:
    """What people did, newest first."""

    def read(answer: list[Any]) -> tuple[AuditEntry, ...]:
        return tuple(_audit_entry(entry.decode(), fields) for entry, fields in answer)

    return Question(_AUDIT, [limit], read)


def _audit_entry(entry: str, fields: list[bytes]) -> AuditEntry:
    known = {name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=True)}
    return AuditEntry(
        time=moment(int(entry.partition("-")[0])),
        by=known["by"],
        action=known["action"],
        target=known["target"],
        count=int(known["count"]),
        ids=tuple(known["ids"].split()),
    )
