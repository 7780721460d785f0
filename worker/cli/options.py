"""What several commands take, with the same name and the same help everywhere, and how it is read."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any, get_type_hints

import redis
import typer

from worker.errors import ConfigurationError
from worker.ground.durations import parse_duration
from worker.ground.logs import configure_logs
from worker.ground.texts import shown
from worker.history.events import State
from worker.history.filters import MARKS, EventFilter, MessageFilter, read_event_filter, read_message_filter
from worker.server.connection import check_server, connect
from worker.settings import Settings, settings_in_force


def _beginning(words: list[str]) -> Callable[[str], list[str]]:
    """Completes an option's value in the shell."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete.lower())]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")]
WithArguments = Annotated[bool, typer.Option("--arguments", help="With the arguments of messages.")]
MessageId = Annotated[str, typer.Argument(help="The message's id.")]

States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        help=f"In this state ({', '.join(MARKS)}: the last two, that an attempt ended so); several: in one of them.",
        autocompletion=_beginning(list(MARKS)),
    ),
]
EventState = Annotated[
    str | None,
    typer.Option("--state", help=f"Of this state ({', '.join(State)}).", autocompletion=_beginning(list(State))),
]
Actor = Annotated[str | None, typer.Option("--actor", help="Of this actor.")]
Queue = Annotated[str | None, typer.Option("--queue", help="Of this queue.")]
Subject = Annotated[
    list[str] | None, typer.Option("--subject", help="About this, such as conversation_id=42; several: all of them.")
]
ErrorType = Annotated[str | None, typer.Option("--error", help="Failed with an error of this type.")]
Cause = Annotated[
    str | None,
    typer.Option("--cause", help="A dead letter that died of this: an error's type with its module, or lost."),
]
Since = Annotated[str | None, typer.Option("--since", help="Not older than this: 2h, or 2026-11-21T09:00.")]
Until = Annotated[str | None, typer.Option("--until", help="Not newer than this: 2h, or 2026-11-21T09:00.")]

_COMMON = {"actor": Actor, "queue": Queue, "subject": Subject, "error": ErrorType, "since": Since, "until": Until}
_OF_MESSAGES: dict[str, Any] = {"states": States} | _COMMON | {"cause": Cause}
_OF_EVENTS: dict[str, Any] = {"state": EventState} | _COMMON


def filters_messages(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a filter of messages; it gets what they say as its argument `wanted`."""
    return _with_options(command, _OF_MESSAGES, message_filter)


def filters_events(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a filter of events; it gets what they say as its argument `wanted`."""
    return _with_options(command, _OF_EVENTS, event_filter)


def message_filter(**values: Any) -> MessageFilter:  # noqa: ANN401 - texts and lists of them
    """Reads the options of a filter of messages.

    Raises:
        ConfigurationError: One cannot be read.
    """
    with _complaints_about_options():
        return read_message_filter(**_given(values))


def event_filter(**values: Any) -> EventFilter:  # noqa: ANN401 - texts and lists of them
    """Reads the options of a filter of events.

    Raises:
        ConfigurationError: One cannot be read.
    """
    with _complaints_about_options():
        return read_event_filter(**_given(values))


@contextlib.contextmanager
def _complaints_about_options() -> Iterator[None]:
    """Has a complaint name the option: it begins with what cannot be read, such as `state done: …`."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"--{error}") from None


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """The values of the options that were given."""
    for name, value in values.items():
        # Of a variable that is not set in somebody's script: a filter without it would match far more than was meant.
        if value is not None and any(not one.strip() for one in ([value] if isinstance(value, str) else value)):
            raise ConfigurationError(f"{name.removesuffix('s')} is empty: leave it out, or give it a value")
    return {name: value for name, value in values.items() if value is not None}


def _with_options(
    command: Callable[..., None], options: dict[str, Any], read: Callable[..., object]
) -> Callable[..., None]:
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "wanted"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in options.items()]

    def run(**values: Any) -> None:  # noqa: ANN401 - as the command's own
        command(wanted=read(**{name: values.pop(name) for name in options}), **values)

    parameters = [*more, *(parameter.replace(kind=keyword) for parameter in own)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def begin() -> Settings:
    """Reads the settings and sets up logging, as every command does first."""
    settings = settings_in_force()
    configure_logs(settings.log_level, settings.log_format)
    return settings


def open_server() -> redis.Redis:
    """Begins, and opens a client of the server.

    Raises:
        ServerUnreachable: It does not answer.
    """
    settings = begin()
    client = connect(settings)
    check_server(client, settings)
    return client


def read_duration(option: str, text: str) -> timedelta:
    """Reads the value of an option that is a duration.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {shown(text)}: {error}") from None
