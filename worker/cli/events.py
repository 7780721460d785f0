"""`worker events`: the events of the past, and new ones as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import redis
import typer

from worker.cli.options import AsJson, Limit, filters_events, open_server
from worker.cli.output import (
    EVENT_HEADINGS,
    event_row,
    print_aside,
    print_event,
    print_json,
    print_table,
    tell_of_limit,
)
from worker.history.as_json import Event, Shown
from worker.history.events import StatusEvent
from worker.history.filters import EventFilter
from worker.history.query import read_events
from worker.history.tail import follow_events, position
from worker.server.client import RedisClient
from worker.server.troubles import trouble

_RETRY_EVERY = 1.0
_WHOLE = Shown(tracebacks=True)


@filters_events
def events(
    wanted: EventFilter,
    limit: Limit = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also print new events as they come.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show status events, oldest first; --json prints one object on each line."""
    client = open_server()
    try:
        after = position(client)
        found = read_events(client, wanted, limit)
    except redis.RedisError as error:
        raise trouble(error) from error
    if as_json or follow:
        _print_each(found, as_json=as_json)
    else:
        print_table(EVENT_HEADINGS, [event_row(event) for event in found])
        tell_of_limit(len(found), limit)
    if follow:
        shown = {event.id for event in found}
        for event in _followed(client, wanted, after):
            if event.id not in shown:
                _print_each([event], as_json=as_json)


def _followed(client: RedisClient, wanted: EventFilter, after: str) -> Iterator[StatusEvent]:
    """New events; an outage of the server interrupts them, and does not end them."""
    is_away = False
    while True:
        try:
            for one in follow_events(client, wanted, after=after):
                after = one.position
                if is_away:
                    is_away = False
                    print_aside("worker: the server is back")
                if one.missed:
                    print_aside("worker: some events were dropped before they could be read: there were too many")
                if one.event is not None:
                    yield one.event
        except redis.RedisError as error:
            if not is_away:
                is_away = True
                print_aside(f"worker: the server is away, trying again: {' '.join(str(error).split())}")
            time.sleep(_RETRY_EVERY)


def _print_each(found: list[StatusEvent], *, as_json: bool) -> None:
    for event in found:
        print_json(Event.of(event, _WHOLE)) if as_json else print_event(event)
