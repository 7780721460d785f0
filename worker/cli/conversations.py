"""`worker conversations`: import recordings, and show their results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from worker import run_async_in_new_loop
from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_table, print_text
from worker.cli.terminal import console
from worker.conversations.describing import describe
from worker.conversations.importing import import_conversation
from worker.conversations.merging import of_all
from worker.ground.durations import format_duration
from worker.ground.texts import counted

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Import recordings, and show their results.")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Audio files, taken in name order; transcripts in NAME.txt beside.")],
    id_: Annotated[str | None, typer.Option("--id", help="The conversation's id; default: the folder's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import a folder of audio files, and the transcripts beside them, as a conversation."""
    begin()
    conversation_id = id_ or folder.resolve().name
    with Progress(console=console(), disable=as_json or not console().is_terminal, transient=True) as bar:
        task = bar.add_task("importing", total=None)
        imported = run_async_in_new_loop(
            import_conversation(
                folder, conversation_id, progress=lambda done, total: bar.update(task, completed=done, total=total)
            )
        )
    if as_json:
        print_json({"conversation_id": conversation_id, "chunks": imported.chunks, "left_out": imported.left_out})
        return
    print_text(f"conversation {conversation_id}: {counted(imported.chunks, 'chunk')}")
    for one in imported.left_out:
        print_text(f"left out: {one.name}: {one.reason}")


@app.command()
def show(conversation_id: str, as_json: AsJson = False) -> None:
    """Show a conversation's chunks, the merged file and the summary."""
    begin()
    found = run_async_in_new_loop(describe(conversation_id))
    if as_json:
        print_json(found)
        return
    rows = [
        (c["id"], c["started_at"].isoformat()[:19], c["audio_key"] or "", (c["transcript"] or "").strip())
        for c in found["chunks"]
    ]
    print_table(("chunk", "started (UTC)", "audio", "transcript"), rows, title=f"conversation {conversation_id}")
    if merged := found["merged"]:
        chunks = of_all(len(merged["included"]), len(merged["dropped"]))
        print_text(f"merged: {merged['path']} ({format_duration(merged['duration_seconds'])}, {chunks})")
        for refused in merged["dropped"]:
            print_text(f"left out: {refused['name']}: {refused['reason']}")
    if found["summary"]:
        print_text(f"summary: {found['summary']}")
