"""`worker index`: rebuild and optimize the search index."""

from __future__ import annotations

import typer
from rich.progress import Progress

from worker import run_async_in_new_loop
from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_text
from worker.cli.terminal import console
from worker.ground.texts import counted
from worker.recall.indexing import optimize_index, rebuild_index

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Rebuild and optimize the search index.")


@app.command()
def rebuild(as_json: AsJson = False) -> None:
    """Rebuild the index with the configured embedder; stop the workers first."""
    begin()
    with Progress(console=console(), disable=as_json or not console().is_terminal, transient=True) as bar:
        task = bar.add_task("embedding", total=None)
        count = run_async_in_new_loop(rebuild_index(lambda done, total: bar.update(task, completed=done, total=total)))
    if as_json:
        print_json({"chunks": count})
    else:
        print_text(f"{counted(count, 'chunk')} indexed again")


@app.command()
def optimize(as_json: AsJson = False) -> None:
    """Join the index's files, so that answers stay fast; workers also do this by themselves."""
    begin()
    is_done = run_async_in_new_loop(optimize_index)
    if as_json:
        print_json({"optimized": is_done})
    else:
        print_text("the index is optimized" if is_done else "another process is optimizing the index")
