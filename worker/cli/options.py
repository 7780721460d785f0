"""What several commands take, and how their arguments are read."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from worker.durations import parse_duration
from worker.errors import ConfigurationError
from worker.history.events import State
from worker.logs import configure_logs
from worker.settings import Settings, settings_in_force

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def begin() -> Settings:
    """Reads the settings and sets up logging, as every command does first."""
    settings = settings_in_force()
    configure_logs(settings)
    return settings


def read_duration(option: str, text: str) -> timedelta:
    """Reads the value of an option that is a duration.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: {error}") from None


def read_state(text: str) -> State:
    """Reads the name of a state.

    Raises:
        ConfigurationError: There is no such state.
    """
    try:
        return State(text.lower())
    except ValueError:
        raise ConfigurationError(f"--state {text}: there are {', '.join(State)}") from None


def read_pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """Reads `key=value` arguments.

    Raises:
        ConfigurationError: One has no `=`, or no key.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"{option} {pair}: write key=value, such as conversation_id=42")
        found[key] = value
    return found
