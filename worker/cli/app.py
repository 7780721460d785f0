"""The table of commands; a command is imported when it is used."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from worker.errors import MissingExtra
from worker.ground.extras import extra_of

_COMMANDS = {
    "demo": ("worker.cli.demo:demo", "Merge and summarize the sample conversation, with every step in the history."),
    "up": (
        "worker.cli.server:up",
        "Start the workers, and the embedded server if no server is configured; Ctrl-C stops them.",
    ),
    "down": ("worker.cli.server:down", "Stop the embedded server; its data stay."),
    "web": ("worker.cli.web:web", "Serve the dashboard and the API; Ctrl-C stops it."),
    "status": ("worker.cli.status:status", "Show the whole system on one screen."),
    "messages": ("worker.cli.messages:messages", "List messages, newest first."),
    "show": ("worker.cli.show:show", "Show a message's history, with every attempt."),
    "events": ("worker.cli.events:events", "Show status events, oldest first; --json prints one object on each line."),
    "running": ("worker.cli.messages:running", "List running messages, the last enqueued first."),
    "delayed": ("worker.cli.messages:delayed", "List delayed messages, the next due first."),
    "dead": ("worker.cli.dead:app", "List, show, replay and purge dead letters."),
    "cancel": ("worker.cli.actions:cancel", "Cancel messages that wait, are delayed or run."),
    "run-now": ("worker.cli.actions:run_now", "Enqueue delayed messages now."),
    "pause": (
        "worker.cli.actions:pause",
        "Pause a queue: workers finish its messages that they hold, and take no new ones.",
    ),
    "resume": ("worker.cli.actions:resume", "Resume a paused queue: workers take its messages again."),
    "queues": ("worker.cli.system:queues", "List the queues, with their waiting messages."),
    "workers": ("worker.cli.system:workers", "List the worker processes, with their attempts and their problems."),
    "audit": ("worker.cli.system:audit", "List what people did, newest first."),
    "export": (
        "worker.cli.export:export",
        "Write messages with their history to a file, one JSON object on each line.",
    ),
    "health": (
        "worker.cli.system:health",
        "Check whether messages are being run; exit code 0: healthy, 1: degraded or unreachable.",
    ),
    "doctor": ("worker.cli.doctor:doctor", "Check the server and the settings for problems, and show the remedies."),
    "config": (
        "worker.cli.config:config",
        "Show the settings in force and the origin of each; secrets are masked.",
    ),
    "enqueue": ("worker.cli.enqueue:enqueue", "Enqueue a message for an actor."),
    "repositories": ("worker.cli.repositories:app", "Keep folders of source code in the search index."),
    "recall": ("worker.cli.recall:recall", "Find code, conversations and notes that answer a question."),
    "index": ("worker.cli.index:app", "Rebuild and optimize the search index."),
    "conversations": ("worker.cli.conversations:app", "Import recordings, and show their results."),
    "database": ("worker.cli.database:app", "Upgrade the schema of the database."),
}
"""The module and the first line of help of each command; the help is here too, so that a list imports no command."""


class _LazyGroup(TyperGroup):
    _is_listing = False

    @contextlib.contextmanager
    def _listing(self) -> Iterator[None]:
        self._is_listing = True
        try:
            yield
        finally:
            self._is_listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own, private types
        _without_boxes_in_a_pipe(self)
        with self._listing():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:  # noqa: ANN401 - Typer's own, private types
        with self._listing():
            return super().shell_complete(ctx, incomplete)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's own, private type
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - Typer's own, private type
        if cmd_name not in _COMMANDS:
            return None
        place, about = _COMMANDS[cmd_name]
        if self._is_listing:
            return TyperCommand(cmd_name, help=about)
        module, _, name = place.partition(":")
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
        _without_boxes_in_a_pipe(command)
        return command


def _without_boxes_in_a_pipe(command: Any) -> None:  # noqa: ANN401 - a command or a group of them
    if not sys.stdout.isatty():
        command.rich_markup_mode = None
        for one in getattr(command, "commands", {}).values():
            _without_boxes_in_a_pipe(one)


def _not_installed(extra: str, command: str) -> typer.Typer:
    """A command that stands for one with a missing extra, and fails with that extra's name when it is used."""
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
