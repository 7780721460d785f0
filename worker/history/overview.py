"""Questions about the whole system: rates of actors, depths of queues, worker processes, and actions of people.

They are asked like the questions of `worker.history.query`. Counters answer them, so the number of messages does not
matter.
"""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from worker.errors import ConfigurationError
from worker.ground.durations import format_duration
from worker.history.answers import (
    ActorRates,
    AuditEntry,
    HeldAttempt,
    HistorySize,
    Pause,
    QueueInfo,
    Window,
    WorkerInfo,
    moment,
)
from worker.history.asked_with import check_number, check_span
from worker.history.histogram import percentiles
from worker.history.query import PAGE, Question
from worker.history.states import ENDINGS, MessageState, error_share
from worker.server.scripts import Script
from worker.settings import Settings

LONGEST = timedelta(days=366)
"""The longest time for which rates can be asked, because the server looks at each hour of it."""

_COUNTERS, _QUEUES = Script("counters"), Script("queues")
_WORKERS, _AUDIT, _BYTES = Script("workers"), Script("audit"), Script("count_bytes")
_COUNTER = re.compile(r"([^\t]*)\t([^\t]*)\t([^\t]*)\t?")


def actor_rates(over: timedelta) -> Question[tuple[ActorRates, ...]]:
    """The rates of each actor over a time that ends now, the busiest first.

    A time of more than two hours begins at a full hour.

    Raises:
        ConfigurationError: The time is longer than `LONGEST`, or no `timedelta`.
    """

    def read(answer: list[Any]) -> tuple[ActorRates, ...]:
        now, _, (start, counters) = answer
        seconds = max(1.0, (now - start) / 1000)
        by_actor: dict[str, dict[str, int]] = defaultdict(dict)
        # Not split: the collector would stop all threads to look through a list as long as that.
        for counter in _COUNTER.finditer(counters.decode()):
            actor, what, number = counter.groups()
            by_actor[actor][what] = int(number)
        rates = [_rates(actor, counts, seconds) for actor, counts in by_actor.items()]
        return tuple(sorted(rates, key=lambda one: (-one.per_second, one.actor)))

    return Question(_COUNTERS, [_milliseconds(over), ""], read)


def windows(over: timedelta) -> Question[tuple[Window, ...]]:
    """The counts of each minute, or of each hour if the time is longer than two hours; the oldest first.

    The last minute or hour is still running.

    Raises:
        ConfigurationError: The time is longer than `LONGEST`, or no `timedelta`.
    """

    def read(answer: list[Any]) -> tuple[Window, ...]:
        _, length, *found = answer
        return tuple(_window(moment(start), length, fields) for start, fields in found)

    return Question(_COUNTERS, [_milliseconds(over), "t"], read)


def _milliseconds(over: timedelta) -> int:
    check_span("over", over)
    if over > LONGEST:
        raise ConfigurationError(f"{format_duration(over)} is too long: at most {format_duration(LONGEST)}")
    return round(over.total_seconds() * 1000)


def _window(start: datetime, length: int, fields: bytes) -> Window:
    words = fields.decode().split()
    counts = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    durations, waits = _histograms(counts)
    return Window(
        start=start,
        seconds=length / 1000,
        ended={state.value: counts.get(state, 0) for state in ENDINGS},
        duration=percentiles(durations),
        wait=percentiles(waits),
    )


def _rates(actor: str, counts: dict[str, int], seconds: float) -> ActorRates:
    ended = {state.value: counts.get(state, 0) for state in ENDINGS}
    durations, waits = _histograms(counts)
    return ActorRates(
        actor=actor,
        ended=ended,
        per_second=sum(ended.values()) / seconds,
        error_share=error_share(ended),
        duration=percentiles(durations),
        wait=percentiles(waits),
        blocked_ms=counts.get("blocked", 0),
    )


def _histograms(counts: dict[str, int]) -> tuple[dict[int, int], dict[int, int]]:
    """The histograms of durations and of waits."""
    found: dict[str, dict[int, int]] = {"d": {}, "q": {}}
    for what, number in counts.items():
        place = _bucket(what)
        if place is not None:
            found[place[0]][place[1]] = number
    return found["d"], found["q"]


@functools.lru_cache(maxsize=1_000)
def _bucket(what: str) -> tuple[str, int] | None:
    """The histogram and the bucket of a counter, or None if the counter is not a bucket."""
    # Cached, because a week has the same few names a hundred times.
    return (what[0], int(what[1:])) if what[0] in "dq" and what[1:].isdigit() else None


def queues() -> Question[tuple[QueueInfo, ...]]:
    """The queues, ordered by name, with their depth, the wait of their oldest message, and their pause."""

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
        oldest_seconds=None if oldest < 0 else max(0, now - oldest) / 1000,
        pause=pause and Pause(pause["by"], moment(pause["at"])),
    )


def history_size(settings: Settings) -> Question[HistorySize]:
    """The bytes that messages which have ended take on the server, and the bounds of these settings."""

    def read(answer: list[Any]) -> HistorySize:
        found = {name.decode(): int(number) for name, number in zip(answer[::2], answer[1::2], strict=True)}
        settled = (MessageState.COMPLETED, MessageState.SKIPPED, MessageState.CANCELLED)
        return HistorySize(
            bytes=sum(found.get(state, 0) for state in settled),
            limit=settings.history_bytes,
            dead_bytes=found.get(MessageState.DEAD, 0),
            dead_limit=settings.dead_bytes,
        )

    return Question(_BYTES, [], read)


def workers() -> Question[tuple[WorkerInfo, ...]]:
    """The worker processes, ordered by name, with their attempts and their problems at the last heartbeat.

    One that has ended by itself is told of for a quarter of an hour, without either.
    """

    def read(answer: list[Any]) -> tuple[WorkerInfo, ...]:
        now, *found = answer
        return tuple(sorted((_worker(now, *one) for one in found), key=lambda worker: worker.name))

    return Question(_WORKERS, [], read)


_OF_THE_PROCESS = ("host", "pid", "at", "queues", "threads", "concurrency", "pool_size")
"""The facts about a process that stay true after its end."""


def _worker(now: int, name: bytes, expires: int, ended: int, known: bytes) -> WorkerInfo:
    about: dict[str, Any] = json.loads(known)
    if ended:
        # What it did at its last heartbeat, it does no more.
        about = {name: about[name] for name in _OF_THE_PROCESS if name in about}
    host, pid, *_ = name.decode().rsplit(":", 2)
    attempts = [HeldAttempt(id_, actor, number, moment(at)) for id_, actor, number, at in about.get("attempts", ())]
    return WorkerInfo(
        name=name.decode(),
        host=about.get("host", host),
        pid=int(about.get("pid", pid)),
        alive=expires >= now,
        stopped=moment(ended) if ended else None,
        started=moment(about["at"] * 1000) if "at" in about else None,
        heartbeat=moment(ended or expires - about.get("lease_ms", 0)),
        queues=tuple(about.get("queues", ())),
        threads=about.get("threads", 0),
        threads_busy=about.get("threads_busy", len(attempts)),
        concurrency=about.get("concurrency", 0),
        on_loop=about.get("on_loop", 0),
        loop_blocked_seconds=about.get("loop_blocked", 0.0),
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
    """The audit log, newest first: actions, enqueueing and syncing of people, and refused log-ins.

    Raises:
        ConfigurationError: The limit is no number from 0.
    """
    check_number("limit", limit)

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
