"""How commands print: tables and colours for people, plain lines in a pipe, JSON on request."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.durations import format_duration
from worker.history.events import State, StatusEvent

_STYLES = {
    State.STARTED: "cyan",
    State.PROGRESS: "dim",
    State.COMPLETED: "green",
    State.SKIPPED: "yellow",
    State.FAILED: "red",
    State.CANCELLED: "magenta",
    State.LOST: "red",
}
_PIPE_WIDTH = 10_000


def console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error; text is printed as it is, and never wrapped in a pipe."""
    out = Console(stderr=stderr, markup=False, highlight=False)
    return out if out.is_terminal else Console(stderr=stderr, markup=False, highlight=False, width=_PIPE_WIDTH)


def print_json(value: object) -> None:
    """Prints one JSON value on a line, at once."""
    _print_line(json.dumps(value, ensure_ascii=False, default=str))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str | None = None) -> None:
    """Prints a table; in a pipe as plain lines, a row each."""
    out = console()
    if not out.is_terminal:
        _print_lines(headings, rows)
        return
    table = Table(*headings, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for row in rows:
        # Text, not markup: what comes from a message is shown as it is.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    out.print(table)


def _print_lines(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    lines = [list(headings), *([" ".join(str(cell).split()) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        _print_line("  ".join(cells).rstrip())


def _print_line(line: str) -> None:
    try:
        print(line, flush=True)  # noqa: T201 - what the command is for
    except BrokenPipeError:
        # Whoever read our output (`head`) has seen enough; what is left of it must not fail at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


EVENT_HEADINGS = ("time", "event", "attempt", "took", "waited", "subject", "text")


def _local(moment: datetime) -> str:
    """The local time, with its date unless that is today's."""
    here = moment.astimezone()
    day = "" if here.date() == datetime.now(UTC).astimezone().date() else f"{here:%Y-%m-%d} "
    return day + here.strftime("%H:%M:%S.%f")[:-3]


def event_row(event: StatusEvent) -> list[str | Text]:
    """An event as the cells of a table."""
    subject = " ".join(f"{key}={value}" for key, value in event.subject.items())
    text = event.text
    if event.done is not None:
        text = f"{event.done:g}{'' if event.total is None else f'/{event.total:g}'} {text}".rstrip()
    if event.error is not None:
        said = event.error.text.splitlines()
        name = event.error.type.rpartition(".")[2]
        text = "; ".join(part for part in (f"{name}: {said[0] if said else ''}", text) if part)
    if event.blocked_ms is not None:
        blocked = f"loop blocked {format_duration(event.blocked_ms / 1000)} at {event.blocked_at or '?'}"
        text = "; ".join(part for part in (text, blocked) if part)
    return [
        _local(event.time),
        Text(event.event, style=_STYLES[event.state]),
        "" if event.attempt is None else str(event.attempt),
        "" if event.duration_ms is None else format_duration(event.duration_ms / 1000),
        "" if event.queued_ms is None or event.state is not State.STARTED else format_duration(event.queued_ms / 1000),
        subject,
        text,
    ]


def print_event(out: Console, event: StatusEvent) -> None:
    """Prints an event on a line of its own, for a tail."""
    time, name, attempt, took, _, subject, text = event_row(event)
    line = Text.assemble((f"{time}  ", "dim"), name, " " * max(1, 34 - len(event.event)))
    parts = [f"attempt {attempt}" if attempt else "", str(took), str(subject), str(text)]
    line.append(" ".join("  ".join(part for part in parts if part).split("\n")))
    if out.is_terminal or out.stderr:
        out.print(line, soft_wrap=True)
    else:
        _print_line(line.plain)
