"""`worker enqueue`: one message for an actor."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.actors import read_arguments
from worker.cli.options import AsJson, begin, read_duration
from worker.cli.output import print_json, print_text
from worker.operations.actors import enqueue as send
from worker.operations.actors import find_actor
from worker.operations.answers import Enqueued
from worker.operations.audit import ENQUEUE, audit
from worker.server.connection import check_server, connect


def enqueue(
    actor: Annotated[str, typer.Argument(help="The actor's name, such as merge_conversation.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="JSON values, or strings.")] = None,
    delay: Annotated[str | None, typer.Option(help="Time to wait before the message is due, such as 10s.")] = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a message for an actor."""
    settings = begin()
    later = None if delay is None else read_duration("--delay", delay)
    found = find_actor(settings, actor)
    values = read_arguments(found, arguments or [])
    client = connect(settings)
    check_server(client, settings)
    enqueued = Enqueued.of(send(found, values, {}, delay=later))
    audit(client, ENQUEUE, enqueued.actor, [enqueued.message_id])
    if as_json:
        print_json(enqueued)
    else:
        print_text(f"{enqueued.actor} enqueued as {enqueued.message_id}")
