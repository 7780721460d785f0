"""`worker dead`: lists, shows, replays and purges dead letters."""

from __future__ import annotations

import typer

from worker.cli.actions import acting
from worker.cli.messages import Cursor, read_page, tell_of_more
from worker.cli.options import AsJson, Limit, MessageId, WithArguments, filters_messages, open_server
from worker.cli.output import MESSAGE_HEADINGS, message_row, print_json, print_table
from worker.cli.show import UnknownMessage, WholeTracebacks, find_message, show_message
from worker.errors import ConfigurationError
from worker.history.as_json import Shown, messages_of
from worker.history.filters import MessageFilter
from worker.history.lists_as_json import MessagePage
from worker.history.query import PAGE
from worker.history.states import Action, MessageState

app = typer.Typer(add_completion=False, help="List, show, replay and purge dead letters.")


@app.callback(invoke_without_command=True)
def dead(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List, show, replay and purge dead letters."""
    if ctx.invoked_subcommand is None:
        _list(MessageFilter(), PAGE, None, as_json=as_json)
    elif as_json:
        raise ConfigurationError(f"write --json after the command: worker dead {ctx.invoked_subcommand} --json")


@app.command("list")
@filters_messages
def list_(wanted: MessageFilter, limit: Limit = PAGE, cursor: Cursor = None, as_json: AsJson = False) -> None:
    """List dead letters, the last that failed first."""
    _list(wanted, limit, cursor, as_json=as_json)


@app.command()
def show(
    message_id: MessageId, arguments: WithArguments = False, whole: WholeTracebacks = False, as_json: AsJson = False
) -> None:
    """Show a dead letter's history, with every attempt."""
    message = find_message(open_server(), message_id)
    if message.state != MessageState.DEAD:
        raise UnknownMessage(f"message {message_id} is not a dead letter: it is {message.state}; see `worker show`")
    show_message(message, arguments=arguments, whole=whole, as_json=as_json)


app.command("replay")(acting(Action.REPLAY, "Enqueue dead letters again: the same messages, with a new retry budget."))
app.command("purge")(acting(Action.PURGE, "Remove dead letters and their history for good."))


def _list(wanted: MessageFilter, limit: int, cursor: int | None, *, as_json: bool) -> None:
    page = read_page(open_server(), wanted, limit, cursor, within=(MessageState.DEAD,))
    if as_json:
        print_json(MessagePage(messages_of(page.messages, Shown()), page.cursor))
        return
    print_table(MESSAGE_HEADINGS, [message_row(message) for message in page.messages])
    tell_of_more(page.cursor)
