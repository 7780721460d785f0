"""`worker repositories`: folders whose files are kept in the search index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from worker import lease, run_async_in_new_loop
from worker.cli.options import AsJson, begin, open_server
from worker.cli.output import ago, print_aside, print_json, print_table, print_text, state_style
from worker.cli.terminal import Row, Styled, console
from worker.errors import ConfigurationError, LeaseTaken, NoContentFound, WorkerError
from worker.ground.texts import counted
from worker.operations.actors import find_actor
from worker.operations.audit import SYNC, audit
from worker.recall import repository_sync
from worker.recall.repositories import (
    RepositoryAnswer,
    add_repository,
    describe_repositories,
    known_repositories,
    lease_name,
    remove_repository,
)
from worker.recall.repository_sync import Synced
from worker.server.client import RedisClient

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Keep folders of source code in the search index.")

Name = Annotated[str, typer.Argument(help="The repository's name.")]

_BAR = 30


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="The folder; with git or without.")],
    name: Annotated[str | None, typer.Option(help="The repository's name; default: the folder's name.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only files that match, such as '*.py'; several.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files that match, such as 'vendor/'; several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a folder; for a known name, change its patterns of wanted files."""
    begin()
    added = run_async_in_new_loop(add_repository(path, name, include=include or (), exclude=exclude or ()))
    if as_json:
        print_json({"name": added.name, "path": str(added.path)})
    else:
        print_text(f"repository {added.name}: {added.path}")
        print_aside(f"sync it with `worker repositories sync {added.name}`")


@app.command()
def sync(
    names: Annotated[list[str] | None, typer.Argument(help="Names; default: all of them.")] = None,
    here: Annotated[bool, typer.Option("--here", help="In this process, without workers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the index match the files on disk: enqueue a message for each repository."""
    settings = begin().model_copy(update={"actors": ("worker.tasks",)})
    wanted = [one.name for one in run_async_in_new_loop(lambda: known_repositories(names or []))]
    if not wanted:
        print_aside("there are no repositories: add one with `worker repositories add FOLDER`")
    client = open_server()
    if here:
        _sync_here(client, wanted, as_json=as_json)
        return
    actor = find_actor(settings, "sync_repository")
    sent: dict[str, str] = {}
    for name in wanted:
        sent[name] = actor.send(name).message_id
        audit(client, SYNC, name, [sent[name]])
    if as_json:
        print_json({"repositories": [_synced(name, message_id=message_id) for name, message_id in sent.items()]})
        return
    for name, message_id in sent.items():
        print_text(f"sync of {name} enqueued as {message_id}")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the repositories, with the numbers of their stored files and chunks."""
    begin()
    found = run_async_in_new_loop(describe_repositories)
    if as_json:
        print_json(found)
        return
    headings = ("repository", "files", "chunks", "errors", "last sync", "progress", "path")
    print_table(headings, [_row(one) for one in found.repositories])


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show the stored files and chunks of a repository, and its last sync."""
    begin()
    [found] = run_async_in_new_loop(lambda: describe_repositories([name])).repositories
    if as_json:
        print_json(found)
        return
    print_text(f"{found.name}: {found.path}")
    for word, globs in (("include", found.include), ("exclude", found.exclude)):
        if globs:
            print_text(f"{word}: {' '.join(globs)}")
    stored = (counted(found.files, "file"), counted(found.chunks, "chunk"), counted(found.bytes, "byte"))
    print_text(f"stored: {', '.join(stored)}")
    if found.left_out:
        print_text("left out: " + ", ".join(f"{count} {reason}" for reason, count in found.left_out.items()))
    print_text(f"errors: {found.errors}")
    _show_sync(found)


@app.command()
def remove(name: Name, as_json: AsJson = False) -> None:
    """Remove a repository and its chunks in the index; its files stay."""
    begin()
    run_async_in_new_loop(lambda: known_repositories([name]))
    open_server()
    try:
        with lease(lease_name(name)):
            run_async_in_new_loop(remove_repository(name))
    except LeaseTaken as error:
        raise WorkerError(f"{name} is being synced by message {error.holder}: cancel that first") from error
    if as_json:
        print_json({"removed": name})
    else:
        print_text(f"repository {name} removed")


def _sync_here(client: RedisClient, names: list[str], *, as_json: bool) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
    results, failed = [], []
    with Progress(*columns, console=console(), disable=as_json or not console().is_terminal, transient=True) as bar:
        for name in names:
            task = bar.add_task(name, total=None, text="")
            audit(client, SYNC, name, ())

            def told(done: int, total: int, text: str, task: Any = task) -> None:  # noqa: ANN401 - rich's own
                bar.update(task, completed=done, total=total, text=text)

            try:
                text = _result(name, told)
            except ConfigurationError:
                raise
            except WorkerError as error:  # the other repositories are still synced
                text = str(error)
                failed.append(name)
            results.append(_synced(name, result=text))
            if not as_json:
                print_text(f"{name}: {text}")
    if as_json:
        print_json({"repositories": results})
    if failed:
        raise WorkerError(f"{len(failed)} of {len(names)} were not synced: {', '.join(failed)}")


def _synced(name: str, *, message_id: str | None = None, result: str | None = None) -> dict[str, str | None]:
    """A repository as JSON, with the message that syncs it, or with the result of its sync here."""
    return {"name": name, "message_id": message_id, "result": result}


def _result(name: str, progress: repository_sync.Progress) -> str:
    try:
        with lease(lease_name(name)):
            synced: Synced = run_async_in_new_loop(repository_sync.sync_repository(name, progress=progress))
    except LeaseTaken as error:
        raise WorkerError(f"it is being synced by message {error.holder}") from error
    except NoContentFound as reason:
        return str(reason)
    return synced.describe()


def _row(found: RepositoryAnswer) -> Row:
    sync = found.sync
    state = "never" if sync is None else Styled(sync.state, state_style(sync.state))
    progress = "" if sync is None else f"{sync.done}/{sync.matching}"
    counts = (str(count) for count in (found.files, found.chunks, found.errors))
    return (found.name, *counts, state, progress, found.path)


def _show_sync(found: RepositoryAnswer) -> None:
    sync = found.sync
    if sync is None:
        print_text("never synced")
        return
    print_text(f"last sync: {sync.state}, last update {ago(sync.updated_at)} ago")
    done, matching = sync.done, sync.matching
    print_text(f"files: {sync.scanned} scanned, {matching} wanted, {done} done")
    out = console()
    if out.is_terminal and matching:
        out.print(ProgressBar(total=matching, completed=done, width=_BAR), Text(f" {done * 100 // matching}%"))
    elif matching:
        filled = done * _BAR // matching
        print_text(f"[{'#' * filled}{'.' * (_BAR - filled)}] {done * 100 // matching}%")
    if sync.text:
        print_text(sync.text)
