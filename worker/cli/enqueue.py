"""`worker enqueue`: one message for an actor."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from worker.cli.actors import read_arguments
from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_text
from worker.errors import ConfigurationError
from worker.ground.texts import shown
from worker.operations.actors import enqueue as send
from worker.operations.actors import find_actor
from worker.operations.answers import Enqueued
from worker.operations.audit import ENQUEUE, audit
from worker.server.connection import check_server, connect


class Until(StrEnum):
    """The moments at which a message gives its key up."""

    START = "start"
    END = "end"


class Priority(StrEnum):
    """The priorities of messages."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def _time(help_: str) -> object:
    return typer.Option(help=f"{help_}, such as 10m.", metavar="TIME")


def enqueue(
    actor: Annotated[str, typer.Argument(help="The actor's name, such as merge_conversation.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="JSON values, or strings.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Nothing is enqueued while a message with this key waits or runs.")
    ] = None,
    ttl: Annotated[str | None, _time("Time after which the key is free")] = None,
    until: Annotated[Until | None, typer.Option(help="When the message gives its key up.")] = None,
    delay: Annotated[str | None, _time("Time to wait before the message is due")] = None,
    at: Annotated[str | None, typer.Option(help="When it is due, such as 2026-11-21T09:00+01:00.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="Its priority, in place of its actor's.")] = None,
    queue_name: Annotated[str | None, typer.Option(help="Its queue, in place of its actor's.")] = None,
    message_id: Annotated[str | None, typer.Option(help="Its id: enqueued only if this was never seen.")] = None,
    time_limit: Annotated[str | None, _time("Time limit of an attempt")] = None,
    max_age: Annotated[str | None, _time("Time after which it does not begin any more")] = None,
    max_retries: Annotated[int | None, typer.Option(min=0, max=1000, help="Number of retries.")] = None,
    min_backoff: Annotated[str | None, _time("Shortest delay before the first retry")] = None,
    max_backoff: Annotated[str | None, _time("Longest delay before a retry")] = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a message for an actor."""
    options = {
        "key": key,
        "ttl": ttl,
        "until": until and until.value,
        "delay": delay,
        "at": at and _read_moment(at),
        "priority": priority and priority.value,
        "queue_name": queue_name,
        "message_id": message_id,
        "time_limit": time_limit,
        "max_age": max_age,
        "max_retries": max_retries,
        "min_backoff": min_backoff,
        "max_backoff": max_backoff,
    }
    settings = begin()
    found = find_actor(settings, actor)
    values = read_arguments(found, arguments or [])
    client = connect(settings)
    check_server(client, settings)
    try:
        enqueued = Enqueued.of(send(found, values, {}, options))
    except ConfigurationError as error:
        raise _about_option(error, options) from None
    audit(client, ENQUEUE, enqueued.actor, [enqueued.message_id] if enqueued.is_new else [])
    if as_json:
        print_json(enqueued)
    elif enqueued.is_new:
        print_text(f"{enqueued.actor} enqueued as {enqueued.message_id}")
    else:
        print_text(f"nothing was enqueued: message {enqueued.message_id} is in the way")


def _about_option(error: ConfigurationError, names: Iterable[str]) -> ConfigurationError:
    """The error with the option's name as it is typed here: it begins with `delay=` in Python."""
    name, equals, rest = str(error).partition("=")
    return ConfigurationError(f"--{name.replace('_', '-')} {rest.lstrip()}") if equals and name in names else error


def _read_moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--at {shown(text)}: write a time such as 2026-11-21T09:00+01:00") from None
