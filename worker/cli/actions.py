"""`worker cancel`, `run-now`, `pause` and `resume`, and the way of every action: choose, preview, confirm, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from worker.cli.exit_codes import FAILED, MISUSED
from worker.cli.options import AsJson, filters_messages, open_server
from worker.cli.output import MESSAGE_HEADINGS, message_row, print_aside, print_json, print_table, print_text
from worker.errors import ConfigurationError
from worker.ground.texts import counted, shown
from worker.history.filters import MessageFilter
from worker.history.states import Action
from worker.operations import actions
from worker.operations.actions import ACTIONS, ASK_ABOVE, UNKNOWN, Outcome, Preview, Targets
from worker.operations.answers import Done, Turned

SHOWN = 20
"""Messages that a dry run lists."""

Ids = Annotated[list[str] | None, typer.Argument(help="The messages' ids; or give a filter.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every message that the action is for.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count and list them.")]
Yes = Annotated[bool, typer.Option("--yes", help=f"Do not ask, even above {ASK_ABOVE} messages.")]
QueueName = Annotated[str, typer.Argument(help="The queue's name.")]

_DONE: Mapping[str, str] = {
    Action.REPLAY: "enqueued again",
    Action.PURGE: "purged",
    Action.CANCEL: "cancelled",
    Action.RUN_NOW: "enqueued now",
}


def acting(action: Action, says: str) -> Callable[..., None]:
    """The command of an action, for messages by id or by filter; `says` is its help."""

    def command(
        wanted: MessageFilter,
        ids: Ids = None,
        all_: All = False,
        dry_run: DryRun = False,
        yes: Yes = False,
        as_json: AsJson = False,
    ) -> None:
        act(action, choose(wanted, ids, everything=all_), dry_run=dry_run, yes=yes, as_json=as_json)

    command.__doc__ = says
    return filters_messages(command)


cancel = acting(Action.CANCEL, "Cancel messages that wait, are delayed or run.")
run_now = acting(Action.RUN_NOW, "Enqueue delayed messages now.")


def pause(queue: QueueName, as_json: AsJson = False) -> None:
    """Pause a queue: workers finish its messages that they hold, and take no new ones."""
    changed = actions.pause(open_server(), queue)
    if as_json:
        print_json(Turned(queue, paused=True, changed=changed))
    else:
        said = "is paused" if changed else "was paused already"
        print_text(f"queue {queue} {said}: `worker resume {queue}` ends that")


def resume(queue: QueueName, as_json: AsJson = False) -> None:
    """Resume a paused queue: workers take its messages again."""
    changed = actions.resume(open_server(), queue)
    if as_json:
        print_json(Turned(queue, paused=False, changed=changed))
    else:
        print_text(f"queue {queue} {'goes on' if changed else 'was not paused'}")


def choose(wanted: MessageFilter, ids: Sequence[str] | None, *, everything: bool) -> Targets:
    """The targets of an action: messages by id, those that match a filter, or all.

    Raises:
        ConfigurationError: None of these is given, or more than one.
    """
    filtered = wanted != MessageFilter()
    if sum((bool(ids), filtered, everything)) != 1:
        raise ConfigurationError("name messages by their ids, or by a filter such as --actor NAME, or say --all")
    if ids and not all(one.strip() for one in ids):
        raise ConfigurationError("an id is empty: leave it out")
    return ids or wanted


def act(action: str, targets: Targets, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Previews or takes an action, and prints the result.

    The exit code is 2 if nobody has an id that was named, and else 1 if a message that was named was not changed.

    Raises:
        ConfigurationError: There are many messages, `--yes` is missing, and there is no terminal to ask on.
    """
    client = open_server()
    found = actions.preview(client, action, targets, limit=SHOWN)
    if dry_run:
        _tell_preview(found, as_json=as_json)
        _end(found.refused)
        return
    if found.count > ASK_ABOVE and not yes:
        _confirm(found)
    # What was counted, and maybe asked about, is what is done; ids are kept, so that those are told that are refused.
    chosen = found.targets if isinstance(targets, MessageFilter) and not yes else targets
    outcome = ACTIONS[action](client, chosen)
    _tell(outcome, as_json=as_json)
    if not isinstance(targets, MessageFilter):
        _end(outcome.refused)


def _confirm(found: Preview) -> None:
    name, number = found.action.replace("_", "-"), counted(found.count, "message")
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{name} is about {number}: add --yes, or --dry-run to see which")
    if not typer.confirm(f"{name} {number}?", err=True):
        print_aside("nothing was done")
        raise typer.Exit(FAILED)


def _tell_preview(found: Preview, *, as_json: bool) -> None:
    if as_json:
        print_json(Done.of_preview(found))
        return
    print_table(MESSAGE_HEADINGS, [message_row(message) for message in found.messages])
    left_out = found.count - len(found.messages)
    newest = f", the newest {len(found.messages)} are listed" if left_out > 0 else ""
    print_aside(f"{counted(found.count, 'message')} would be {_DONE[found.action]}{newest}")
    _tell_refused(found.refused)


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print_json(Done.of(outcome))
        return
    print_text(f"{counted(len(outcome.done), 'message')} {_DONE[outcome.action]}")
    _tell_refused(outcome.refused)


def _tell_refused(refused: Mapping[str, str]) -> None:
    for message_id, reason in refused.items():
        print_aside(f"worker: {shown(message_id)}: {reason}")


def _end(refused: Mapping[str, str]) -> None:
    if refused:
        raise typer.Exit(MISUSED if UNKNOWN in refused.values() else FAILED)
