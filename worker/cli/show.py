"""`worker show`: the timeline of one message, with every attempt."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.options import AsJson, MessageId, WithArguments, open_server
from worker.cli.output import (
    about,
    ago,
    local_time,
    message_state,
    milliseconds,
    print_json,
    print_text,
    print_texts,
    progress_of,
    rough,
    state_style,
)
from worker.cli.terminal import Styled
from worker.errors import ConfigurationError
from worker.ground.texts import counted, shown
from worker.ground.tracebacks import from_the_programs_code
from worker.history.answers import StoredMessage
from worker.history.as_json import MessageDetail, Shown
from worker.history.events import State, StatusEvent
from worker.history.query import ask, one_message
from worker.history.states import MessageState
from worker.history.timeline import TimelineAttempt, attempts_of, requests_of
from worker.server.client import RedisClient

WholeTracebacks = Annotated[
    bool, typer.Option("--whole", help="Show whole tracebacks, with the frames of the worker around the actor's.")
]


class UnknownMessage(ConfigurationError):
    """The history does not have the message."""


def show(
    message_id: MessageId, arguments: WithArguments = False, whole: WholeTracebacks = False, as_json: AsJson = False
) -> None:
    """Show a message's history, with every attempt."""
    show_message(find_message(open_server(), message_id), arguments=arguments, whole=whole, as_json=as_json)


def find_message(client: RedisClient, message_id: str) -> StoredMessage:
    """Finds a message by its id.

    Raises:
        UnknownMessage: The history does not have the message.
    """
    found = ask(client, one_message(message_id))
    if found is None:
        raise UnknownMessage(
            f"nothing is kept of a message {shown(message_id)}: `worker messages` lists those that are kept"
        )
    return found


def show_message(message: StoredMessage, *, arguments: bool, whole: bool = False, as_json: bool) -> None:
    """Prints a message's timeline; JSON always has whole tracebacks."""
    if as_json:
        print_json(MessageDetail.of(message, Shown(arguments=arguments, tracebacks=True)))
        return
    attempts, requests = attempts_of(message), requests_of(message)
    _print_head(message, arguments=arguments)
    if message.events_left_out:
        print_text(f"\n{counted(message.events_left_out, 'older event')} not kept: there were too many")
    for attempt in attempts:
        _print_attempt(attempt, whole=whole)
    if requests:
        print_text("\nasked for")
    for request in requests:
        print_text(f"  {local_time(request.time)}  {request.text} by {request.by}")


def _print_head(message: StoredMessage, *, arguments: bool) -> None:
    since = local_time(message.since)
    when = f"due {since}" if message.state == MessageState.DELAYED else f"since {since} ({ago(message.since)} ago)"
    print_texts("message   ", message.id)
    print_texts("state     ", message_state(message.state), f", {when}")
    if message.waits_for:
        print_texts("waits for ", f"a worker that can run it: {message.waits_for}")
    if message.queue:
        priority = "" if message.priority == "normal" else f", priority {message.priority}"
        print_texts("actor     ", message.actor, f", queue {message.queue}{priority}")
    if message.enqueued is not None:
        print_texts("enqueued  ", local_time(message.enqueued))
    if message.follows is not None:
        print_texts("follows   ", f"itself: due {local_time(message.follows)}, after its end")
    if message.subject:
        print_texts("subject   ", about(message.subject))
    if message.arguments_dropped:
        print_texts("arguments ", "not kept any more: the history has reached WORKER_HISTORY_BYTES")
    elif arguments:
        print_texts("arguments ", message.arguments)


def _print_attempt(attempt: TimelineAttempt, *, whole: bool) -> None:
    print_text("")
    print_texts(f"attempt {attempt.number}  ", Styled(attempt.state, state_style(attempt.state)))
    when = [
        f"started {local_time(attempt.started)}" if attempt.started is not None else "",
        f"waited {milliseconds(attempt.queued_ms)}" if attempt.queued_ms is not None else "",
        f"ran {milliseconds(attempt.duration_ms)}" if attempt.duration_ms is not None else "",
        f"has run {ago(attempt.started)}" if attempt.ended is None and attempt.started is not None else "",
        f"on {attempt.worker.host}:{attempt.worker.pid}" if attempt.worker is not None else "",
    ]
    print_text("  " + ", ".join(part for part in when if part))
    if attempt.blocked_ms is not None:
        print_text(f"  its loop was blocked for {milliseconds(attempt.blocked_ms)}, at {attempt.blocked_at or '?'}")
    if attempt.progress is not None:
        print_text(f"  progress {progress_of(attempt.progress)}")
    for event in attempt.events:
        if event.state is not State.PROGRESS and _is_of_span(event):
            _print_span(event)
    if attempt.text:
        print_text(_indented(attempt.text))
    if attempt.error is not None:
        traced = attempt.error.traceback if whole else from_the_programs_code(attempt.error.traceback)
        said = traced or ": ".join(part for part in (attempt.error.type, attempt.error.text) if part)
        print_text(_indented(said.rstrip()))


def _is_of_span(event: StatusEvent) -> bool:
    return "/" in event.id.rpartition(":")[2]


def _print_span(event: StatusEvent) -> None:
    took = f" after {rough(event.duration_ms / 1000)}" if event.duration_ms is not None else ""
    error = f": {event.error.line}" if event.error is not None else ""
    text = f": {event.text}" if event.text else ""
    print_text(_indented(f"{local_time(event.time)}  {event.event}{took}{text}{error}", 4))


def _indented(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line for line in text.split("\n"))
