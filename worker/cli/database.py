"""`worker database`: upgrade the database's schema."""

from __future__ import annotations

import typer

from worker import run_async_in_new_loop
from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_text
from worker.stores.database import upgrade_database

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Upgrade the schema of the database.")


@app.callback()
def _database() -> None:
    """Upgrade the schema of the database."""


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Upgrade the schema to that of this version; programs do so by themselves, if their user may make tables."""
    begin()
    done = run_async_in_new_loop(upgrade_database)
    if as_json:
        print_json(done._asdict())
    elif done.before == done.now:
        print_text(f"{done.database}: the schema is {done.now}, as it must be")
    else:
        print_text(f"{done.database}: the schema is {done.now} now; there was {done.before or 'none'}")
