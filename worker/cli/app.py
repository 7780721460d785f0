"""The table of commands, each imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from worker.errors import MissingExtra
from worker.extras import extra_of

_COMMANDS = {
    "demo": "worker.cli.demo:demo",
    "up": "worker.cli.server:up",
    "down": "worker.cli.server:down",
    "config": "worker.cli.config:config",
    "conversations": "worker.cli.conversations:app",
    "enqueue": "worker.cli.enqueue:enqueue",
    "events": "worker.cli.events:events",
}


class _LazyGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's own, private type
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - Typer's own, private type
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if (extra := extra_of(error)) is None:
                raise
            found = _not_installed(extra, cmd_name)
        except MissingExtra as error:
            found = _not_installed(error.extra, cmd_name)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            found.command(cmd_name)(function)
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


def _not_installed(extra: str, command: str) -> typer.Typer:
    """Stands in the list for a command whose extra is missing, and says so when it is used."""
    stand_in = typer.Typer(add_completion=False)

    @stand_in.command(
        help=f"Needs the extra {extra!r}, which is not installed.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def explain() -> None:
        raise MissingExtra(extra, f"`worker {command}`")

    return stand_in


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run async services as Dramatiq background work, and see what happened to every message.",
)


@app.callback()
def _root() -> None:
    """Run async services as Dramatiq background work, and see what happened to every message."""
