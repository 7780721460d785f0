"""The table of commands, each imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from worker.errors import MissingExtra

_COMMANDS = {
    "demo": "worker.cli.demo:demo",
    "up": "worker.cli.server:up",
    "down": "worker.cli.server:down",
    "config": "worker.cli.config:config",
    "conversations": "worker.cli.conversations:app",
    "enqueue": "worker.cli.enqueue:enqueue",
    "events": "worker.cli.events:events",
}

_PACKAGES_OF_TASKS = {"aiosqlite", "av", "numpy", "obstore", "openai", "sqlalchemy", "wordllama"}


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
            if (error.name or "").partition(".")[0] in _PACKAGES_OF_TASKS:
                raise MissingExtra("tasks", f"`worker {cmd_name}`") from error
            raise
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer()
            found.command(cmd_name)(function)
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run async services as Dramatiq background work, and see what happened to every message.",
)


@app.callback()
def _root() -> None:
    """Run async services as Dramatiq background work, and see what happened to every message."""
