"""`worker events`: what happened, and what happens now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from worker.cli.options import AsJson, begin, read_duration, read_pairs, read_state
from worker.cli.output import EVENT_HEADINGS, console, event_row, print_event, print_json, print_table
from worker.connection import check_server, connect
from worker.history.events import StatusEvent
from worker.history.filters import EventFilter
from worker.history.query import read_events
from worker.history.tail import follow_events, position


def events(
    message: Annotated[str | None, typer.Option(help="Of this message.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help="About this, such as conversation_id=42.")] = None,
    actor: Annotated[str | None, typer.Option(help="Of this actor.")] = None,
    state: Annotated[str | None, typer.Option(help="Of this state, such as failed.")] = None,
    since: Annotated[str | None, typer.Option(help="Not older than this, such as 1h.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those that come.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show status events, oldest first; with --json one object a line."""
    settings = begin()
    wanted = EventFilter(
        message_id=message,
        subject=read_pairs("--subject", subject or []),
        actor=actor,
        state=None if state is None else read_state(state),
        since=None if since is None else datetime.now(UTC) - read_duration("--since", since),
    )
    client = connect(settings)
    check_server(client, settings)
    after = position(client)
    found = read_events(client, wanted, limit)
    if as_json:
        for event in found:
            print_json(event.to_dict())
    elif follow:
        _print_each(found)
    else:
        print_table(EVENT_HEADINGS, [event_row(event) for event in found])
    if follow:
        shown = {event.id for event in found}
        for new in follow_events(client, wanted, after=after):
            if new.event is not None and new.event.id not in shown:
                print_json(new.event.to_dict()) if as_json else _print_each([new.event])


def _print_each(found: list[StatusEvent]) -> None:
    out = console()
    for event in found:
        print_event(out, event)
