"""The options that several commands share, each with one name and one help, and their reading."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, get_type_hints

import typer

from worker.errors import ConfigurationError
from worker.ground.durations import parse_duration
from worker.ground.logs import configure_logs
from worker.ground.texts import shown
from worker.history.filters import (
    EVENT_FIELDS,
    MESSAGE_FIELDS,
    EventFilter,
    FilterField,
    Given,
    Kind,
    MessageFilter,
    read_event_filter,
    read_message_filter,
)
from worker.server.client import RedisClient
from worker.server.connection import check_server, connect
from worker.settings import Settings
from worker.settings.unread import unknown_variables

logger = logging.getLogger(__name__)


def _beginning(words: list[str]) -> Callable[[str], list[str]]:
    """Completes an option's value in the shell."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete.lower())]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most this many.")]
WithArguments = Annotated[bool, typer.Option("--arguments", help="Show the arguments of messages too.")]
MessageId = Annotated[str, typer.Argument(help="The message's id.")]


def filters_messages(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a filter of messages; its argument `wanted` is the filter."""
    return _with_options(command, MESSAGE_FIELDS, message_filter)


def filters_events(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a filter of events; its argument `wanted` is the filter."""
    return _with_options(command, EVENT_FIELDS, event_filter)


def message_filter(given: Given) -> MessageFilter:
    """Reads the options of a filter of messages.

    Raises:
        ConfigurationError: The value of an option cannot be read, or is empty.
    """
    with _complaints_about_options():
        return read_message_filter(_in_local_time(_not_empty(given), MESSAGE_FIELDS))


def event_filter(given: Given) -> EventFilter:
    """Reads the options of a filter of events.

    Raises:
        ConfigurationError: The value of an option cannot be read, or is empty.
    """
    with _complaints_about_options():
        return read_event_filter(_in_local_time(_not_empty(given), EVENT_FIELDS))


@contextlib.contextmanager
def _complaints_about_options() -> Iterator[None]:
    """Puts the option's name into an error, which begins with the name of the field, as in `state done: …`."""
    try:
        yield
    except ConfigurationError as error:
        name, space, rest = str(error).partition(" ")
        raise ConfigurationError(f"--{name.replace('_', '-')}{space}{rest}") from None


def _not_empty(given: Given) -> Given:
    """The same values; refuses empty ones.

    A script with an unset variable gives an empty value, and a filter without the condition would match far more.
    """
    for name, value in given.items():
        texts = [value] if isinstance(value, str) else value or ()
        if any(not text.strip() for text in texts):
            raise ConfigurationError(f"{name} is empty: leave it out, or give it a value")
    return given


def _in_local_time(given: Given, table: Sequence[FilterField]) -> Given:
    """The same values; a moment without a zone is one of the terminal's, as the times are that commands print."""
    moments = {field.name for field in table if field.kind is Kind.MOMENT}
    return {name: _with_zones(value) if name in moments else value for name, value in given.items()}


def _with_zones(value: str | Sequence[str] | None) -> str | Sequence[str] | None:
    return _with_zone(value) if isinstance(value, str) else [_with_zone(text) for text in value or ()]


def _with_zone(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
        return value if moment.tzinfo is not None else moment.astimezone().isoformat()
    except (ValueError, OverflowError):
        return value


def _option(field: FilterField) -> inspect.Parameter:
    """The option of a field, as Typer reads it from a signature."""
    words = list(field.choices)
    option = typer.Option(
        None,
        f"--{field.name.replace('_', '-')}",
        help=f"{field.help} ({', '.join(words)})" if words else field.help,
        autocompletion=_beginning(words) if words else None,
    )
    # A list for each: of a text that is given twice, the last would silently replace the first.
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=list[str] | None)


def _with_options(
    command: Callable[..., None], table: Sequence[FilterField], read: Callable[[Given], object]
) -> Callable[..., None]:
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "wanted"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY

    def run(**values: Any) -> None:  # noqa: ANN401 - as the command's own
        command(wanted=read({field.name: values.pop(field.name) for field in table}), **values)

    parameters = [*map(_option, table), *(parameter.replace(kind=keyword) for parameter in own)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def begin(*, stays: bool = False) -> Settings:
    """Reads the settings that the command uses, sets up logging, and tells of variables that name no setting.

    Args:
        stays: Whether the command runs until somebody stops it.

    Raises:
        ConfigurationError: Settings are not valid: one line for each.
    """
    settings = read_settings(stays=stays)
    for line in unknown_variables():
        logger.warning(line)
    return settings


def read_settings(*, stays: bool = False) -> Settings:
    """Reads the settings that the command uses, and sets up logging.

    A script reads what a command prints: one that ends by itself logs only warnings there, unless it is told otherwise.

    Args:
        stays: Whether the command runs until somebody stops it.

    Raises:
        ConfigurationError: Settings are not valid: one line for each.
    """
    Settings.read_all()
    settings = Settings.in_force()
    is_told = stays or "log_level" in settings.model_fields_set or sys.stderr.isatty()
    configure_logs(settings.log_level if is_told else "warning", settings.log_format)
    return settings


def open_server() -> RedisClient:
    """Begins, and opens a client of the server.

    Raises:
        ServerUnreachable: The server does not answer.
    """
    settings = begin()
    client = connect(settings)
    check_server(client, settings)
    return client


def read_duration(option: str, text: str) -> timedelta:
    """Reads the value of an option that is a duration.

    Raises:
        ConfigurationError: The text is not a duration.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {shown(text)}: {error}") from None
