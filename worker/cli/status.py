"""`worker status`: the whole system on one screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.messages import RUNNING_HEADINGS, read_page, running_as_json, running_row
from worker.cli.options import AsJson, begin, read_duration
from worker.cli.output import (
    about,
    lines_of,
    local_time,
    message_state,
    milliseconds,
    print_json,
    print_text,
    print_texts,
    rough,
)
from worker.cli.system import HEALTH_STYLES, QUEUE_HEADINGS, WORKER_HEADINGS, queue_row, worker_row
from worker.cli.terminal import Cell, Row, Styled, console, is_terminal, line_of, table_of, whole_screen
from worker.errors import ConfigurationError, ServerUnreachable
from worker.ground.durations import format_duration
from worker.ground.texts import shown
from worker.history import overview, query
from worker.history.answers import ActorRates, HistorySize, QueueInfo, StoredMessage, WorkerInfo
from worker.history.as_json import Shown, messages_of
from worker.history.filters import MessageFilter
from worker.history.histogram import Percentiles
from worker.history.lists_as_json import States
from worker.history.query import ask
from worker.history.states import FAILED, FAILING, WAITS, MessageState
from worker.operations.health import Health, HealthAnswer, check_health
from worker.server.client import RedisClient
from worker.server.connection import check_server, connect, whereabouts
from worker.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_EVERY = 2.0
_RUNNING = MessageFilter(states=(MessageState.RUNNING,))
NEWEST = 5
"""The number of running messages, and of failures, on the screen."""

MOST_CAUSES = 20
"""The most causes of dead letters on the screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The content of the screen; the rates are those of the time `over`."""

    time: datetime
    server: str
    over: timedelta
    health: Health
    messages: dict[str, int]
    history: HistorySize
    actors: tuple[ActorRates, ...]
    queues: tuple[QueueInfo, ...]
    workers: tuple[WorkerInfo, ...]
    running: tuple[StoredMessage, ...]
    dead_by_cause: dict[str, int]
    failures: tuple[StoredMessage, ...]


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    headings: Sequence[str]
    rows: Sequence[Row]


def status(
    since: Annotated[str, typer.Option(help="Time for rates and failures, which ends now.")] = "1h",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh it every two seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole system on one screen."""
    over = read_duration("--since", since)
    if over > overview.LONGEST:
        raise ConfigurationError(f"--since {shown(since)}: at most {format_duration(overview.LONGEST)}")
    settings = begin()
    client = connect(settings)
    if watch:
        _watch(client, settings, over, as_json=as_json)
        return
    check_server(client, settings)
    _print(look(client, settings, over), as_json=as_json)


def look(client: RedisClient, settings: Settings, over: timedelta) -> Status:
    """Asks for the content of the screen.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    now = datetime.now(UTC)
    return Status(
        time=now,
        server=whereabouts(client, settings),
        over=over,
        health=check_health(client, settings),
        messages=ask(client, query.state_counts()),
        history=ask(client, overview.history_size(settings)),
        actors=ask(client, overview.actor_rates(over)),
        queues=ask(client, overview.queues()),
        workers=ask(client, overview.workers()),
        running=_if_it_can_be_asked(lambda: read_page(client, _RUNNING, NEWEST).messages),
        dead_by_cause=ask(client, query.dead_by_cause()),
        failures=_if_it_can_be_asked(lambda: _failed_since(now - over, client)),
    )


def _failed_since(moment: datetime, client: RedisClient) -> tuple[StoredMessage, ...]:
    newest = read_page(client, MessageFilter(states=FAILED), NEWEST, within=FAILING).messages
    return tuple(one for one in newest if (one.failed or one.since) >= moment)


def _if_it_can_be_asked(find: Callable[[], tuple[StoredMessage, ...]]) -> tuple[StoredMessage, ...]:
    try:
        return find()
    except ServerUnreachable:
        # A search combines indexes on the server, which fails while it refuses writes; the health shows that.
        return ()


def _watch(client: RedisClient, settings: Settings, over: timedelta, *, as_json: bool) -> None:
    """Refreshes the screen every two seconds, also if the server goes away and comes back."""
    if as_json or not is_terminal():
        while True:
            try:
                _print(look(client, settings, over), as_json=as_json)
            except ServerUnreachable as error:
                if as_json:
                    print_json(dict.fromkeys(_KEYS) | {"time": datetime.now(UTC), "error": str(error)})
                else:
                    print_text(f"the server is away: {error}")
            time.sleep(REFRESH_EVERY)
    last: list[RenderableType] = []
    with whole_screen() as show:
        while True:
            try:
                last = _screen(look(client, settings, over))
                show(last)
            except ServerUnreachable as error:
                away = Styled(f"{datetime.now():%H:%M:%S}  the server is away: {error}", "red")  # noqa: DTZ005
                show([line_of([away]), *last])
            time.sleep(REFRESH_EVERY)


def _print(found: Status, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(found))
        return
    if is_terminal():
        console().print(*_screen(found), sep="\n")
        return
    for parts in _head(found):
        print_texts(*parts)
    for section in _sections(found):
        print_text(f"\n{section.title}")
        for line in lines_of(section.headings, section.rows):
            print_text(line)


_KEYS = (
    *("time", "server", "over_seconds", "health", "states", "history", "actors", "queues", "workers"),
    *("running", "dead_by_cause", "failures", "error"),
)


def _as_json(found: Status) -> dict[str, object]:
    return dict.fromkeys(_KEYS) | {
        "time": found.time,
        "server": found.server,
        "over_seconds": found.over.total_seconds(),
        "health": HealthAnswer.of(found.health),
        "states": States.of(found.messages).states,
        "history": found.history,
        "actors": found.actors,
        "queues": found.queues,
        "workers": found.workers,
        "running": running_as_json(found.running, found.workers),
        "dead_by_cause": found.dead_by_cause,
        "failures": messages_of(found.failures, Shown()),
    }


def _screen(found: Status) -> list[RenderableType]:
    tables = [table_of(one.headings, one.rows, title=one.title, compact=True) for one in _sections(found)]
    return [*map(line_of, _head(found)), *(part for table in tables for part in ("", table))]


def _head(found: Status) -> list[list[Cell]]:
    health = found.health
    style = HEALTH_STYLES[health.state]
    counts = [("  ", message_state(state), f" {found.messages.get(state, 0)}") for state in MessageState]
    reasons: list[list[Cell]] = [[Styled(f"  {reason}", style)] for reason in health.reasons]
    return [
        [f"{local_time(found.time)}  {found.server}  ", Styled(health.state, style)],
        *reasons,
        ["messages", *(part for count in counts for part in count)],
        ["history   ", Styled(str(found.history), "yellow" if found.history.dead_letters_will_go else "")],
    ]


def _sections(found: Status) -> list[_Section]:
    """The screen's sections; empty ones are left out."""
    over = rough(found.over)
    failure_headings = ("message", "state", "failed", "actor", "subject", "last error")
    all_ = [
        _Section(f"actors, last {over}", _RATE_HEADINGS, [_rate_row(one) for one in found.actors]),
        _Section("queues", QUEUE_HEADINGS, [queue_row(one) for one in found.queues]),
        _Section("workers", WORKER_HEADINGS, [worker_row(one) for one in found.workers]),
        _Section(f"running, newest {NEWEST}", RUNNING_HEADINGS, [running_row(one) for one in found.running]),
        _causes(found.dead_by_cause),
        _Section(
            f"failed, newest {NEWEST} of last {over}", failure_headings, [_failure(one) for one in found.failures]
        ),
    ]
    return [section for section in all_ if section.rows]


def _causes(dead_by_cause: dict[str, int]) -> _Section:
    """The most frequent causes of dead letters; the title says whether there are others."""
    rows = [(cause, str(count)) for cause, count in islice(dead_by_cause.items(), MOST_CAUSES)]
    left_out = len(dead_by_cause) - len(rows)
    title = f"dead letters, {len(rows)} of {len(dead_by_cause):,} causes" if left_out else "dead letters"
    return _Section(title, ("cause", "messages"), rows)


_RATE_HEADINGS = (
    *("actor", "ended", "a minute", "failed", "snoozed", "took p50", "p95", "p99", "waited p50", "p95", "p99"),
)


def _rate_row(rates: ActorRates) -> Row:
    share = f"{rates.error_share:.1%}"
    return [
        rates.actor,
        str(sum(rates.ended.values())),
        f"{rates.per_second * 60:.3g}",
        Styled(share, "red") if rates.error_share else share,
        str(sum(rates.ended[state] for state in WAITS)),
        *_times(rates.duration),
        *_times(rates.wait),
    ]


def _times(found: Percentiles | None) -> list[str]:
    return ["", "", ""] if found is None else [milliseconds(ms) for ms in (found.p50_ms, found.p95_ms, found.p99_ms)]


def _failure(message: StoredMessage) -> Row:
    return [
        message.id,
        message_state(message.state),
        local_time(message.failed or message.since),
        message.actor,
        about(message.subject),
        message.last_error,
    ]
