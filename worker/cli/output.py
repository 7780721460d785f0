"""The printing of commands: tables and colours for people, plain lines in a pipe, JSON on request.

Text of messages is printed as plain text: it cannot control the terminal, and is never read as markup.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import typer

from worker.cli.terminal import Cell, Row, Styled, console, is_terminal, line_of, table_of
from worker.ground.durations import format_duration
from worker.ground.json_values import to_json
from worker.ground.texts import UNPRINTABLE, visible
from worker.history.answers import StoredMessage
from worker.history.events import State, StatusEvent
from worker.history.states import MessageState

_STYLES = {
    State.STARTED: "cyan",
    State.PROGRESS: "dim",
    State.REQUESTED: "blue",
    State.WAITING: "yellow",
    State.COMPLETED: "green",
    State.SKIPPED: "yellow",
    State.FAILED: "red",
    State.SNOOZED: "yellow",
    State.CANCELLED: "magenta",
    State.LOST: "red",
}
MESSAGE_STYLES: Mapping[str, str] = {
    MessageState.QUEUED: "cyan",
    MessageState.DELAYED: "yellow",
    MessageState.RUNNING: "bold cyan",
    MessageState.COMPLETED: "green",
    MessageState.SKIPPED: "yellow",
    MessageState.DEAD: "red",
    MessageState.CANCELLED: "magenta",
}


def print_json(value: object) -> None:
    """Prints one value as JSON on a line, at once."""
    _print_line(json_line(value))


def json_line(value: object) -> str:
    """One value as a line of JSON that can be written to any file and terminal."""
    line = json.dumps(to_json(value), ensure_ascii=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def print_text(text: str) -> None:
    """Prints text for people; characters that would steer the terminal are escaped."""
    _print_line(visible(text))


def print_texts(*parts: Cell) -> None:
    """Prints parts of a line, some of them in colour."""
    if is_terminal():
        console().print(line_of(parts), soft_wrap=True)
    else:
        _print_line(visible(" ".join("".join(map(str, parts)).split("\n"))))


def print_aside(text: str) -> None:
    """Prints a line for people beside the results, on standard error."""
    print(visible(text), file=sys.stderr, flush=True)  # noqa: T201 - what it is for


def tell_of_limit(found: int, limit: int) -> None:
    """Tells that there may be more than the limit lets through."""
    if found >= limit:
        print_aside(f"the newest {found} are listed: a greater --limit lists more")


def print_table(headings: Sequence[str], rows: Iterable[Row], *, title: str | None = None) -> None:
    """Prints a table; in a pipe, as plain lines with one row on each."""
    if is_terminal():
        console().print(table_of(headings, rows, title=title))
    else:
        for line in lines_of(headings, rows):
            _print_line(line)


def lines_of(headings: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """The table as aligned plain lines."""
    lines = [list(headings), *([" ".join(visible(str(cell)).split()) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    aligned = ((cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return ["  ".join(cells).rstrip() for cells in aligned]


def _print_line(line: str) -> None:
    try:
        print(line, flush=True)  # noqa: T201 - what the command is for
    except BrokenPipeError:
        # Whoever read our output (`head`) has seen enough; what is left of it must not fail at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


EVENT_HEADINGS = ("time", "event", "attempt", "took", "waited", "subject", "text")


def local_time(moment: datetime) -> str:
    """The local time, with its date unless it is today."""
    try:
        here = moment.astimezone()
    except OverflowError:
        return moment.isoformat()  # at an end of the calendar
    day = "" if here.date() == datetime.now(UTC).astimezone().date() else f"{here:%Y-%m-%d} "
    return day + here.strftime("%H:%M:%S.%f")[:-3]


def about(subject: Mapping[str, object]) -> str:
    """A subject on a line."""
    return " ".join(f"{key}={value}" for key, value in subject.items())


def rough(duration: timedelta | float | None) -> str:
    """A duration, or seconds, as a person says it, in at most two units; empty for None."""
    if duration is None:
        return ""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if abs(seconds) < 60:  # noqa: PLR2004 - a minute
        return format_duration(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if abs(seconds) >= size:
            whole, rest = divmod(round(abs(seconds)), size)
            sign = "-" if seconds < 0 else ""
            return f"{sign}{whole}{unit}" + (f" {rest // smaller}{name}" if rest >= smaller else "")
    return format_duration(seconds)


def milliseconds(ms: float | None) -> str:
    """A number of milliseconds as a person says it."""
    return rough(None if ms is None else ms / 1000)


def ago(moment: datetime | None) -> str:
    """The time since a moment, as a person says it; empty for None."""
    return "" if moment is None else rough(datetime.now(UTC) - moment)


def progress_of(event: StatusEvent | None) -> str:
    """The progress in an event, with its text; empty for None."""
    if event is None:
        return ""
    if event.done is None:
        return event.text
    return f"{event.done:g}{'' if event.total is None else f'/{event.total:g}'} {event.text}".rstrip()


def state_style(state: str) -> str:
    """The colour of an attempt's state."""
    return _STYLES.get(State(state), "") if state in set(State) else MESSAGE_STYLES.get(state, "")


def message_state(state: str) -> Styled:
    """A message's state in its colour."""
    return Styled(state, MESSAGE_STYLES.get(state, ""))


MESSAGE_HEADINGS = ("message", "state", "since", "actor", "queue", "attempts", "subject", "said last")


def message_row(message: StoredMessage) -> list[Cell]:
    """A message as the cells of a table."""
    return [
        message.id,
        message_state(message.state),
        local_time(message.since),
        message.actor,
        message.queue,
        str(message.attempts),
        about(message.subject),
        message.said_last,
    ]


def event_row(event: StatusEvent) -> list[Cell]:
    """An event as the cells of a table."""
    text = progress_of(event)
    if event.by is not None:
        text = f"{text} by {event.by}"
    if event.error is not None:
        text = "; ".join(part for part in (event.error.line, text) if part)
    if event.blocked_ms is not None:
        blocked = f"loop blocked {format_duration(event.blocked_ms / 1000)} at {event.blocked_at or '?'}"
        text = "; ".join(part for part in (text, blocked) if part)
    return [
        local_time(event.time),
        Styled(event.event, _STYLES[event.state]),
        "" if event.attempt is None else str(event.attempt),
        "" if event.duration_ms is None else format_duration(event.duration_ms / 1000),
        "" if event.queued_ms is None or event.state is not State.STARTED else format_duration(event.queued_ms / 1000),
        about(event.subject),
        text,
    ]


def print_event(event: StatusEvent, *, stderr: bool = False) -> None:
    """Prints an event on a line of its own, for a tail."""
    time, name, attempt, took, _, subject, text = (str(cell) for cell in event_row(event))
    parts = [f"attempt {attempt}" if attempt else "", took, subject, text]
    rest = " " * max(1, 34 - len(name)) + " ".join("  ".join(part for part in parts if part).split("\n"))
    if (sys.stderr if stderr else sys.stdout).isatty():
        line = line_of([Styled(f"{time}  ", "dim"), Styled(name, _STYLES[event.state]), rest])
        console(stderr=stderr).print(line, soft_wrap=True)
    elif stderr:
        print_aside(f"{time}  {name}{rest}")
    else:
        print_text(f"{time}  {name}{rest}")
