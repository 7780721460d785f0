"""`worker conversations`: import recordings, and show their results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from worker.bridge import run_async_in_new_loop
from worker.cli.options import AsJson, begin
from worker.cli.output import console, print_json, print_table
from worker.conversations.importing import import_conversation
from worker.conversations.merging import read_manifest
from worker.errors import ConfigurationError
from worker.ground.durations import format_duration
from worker.stores.conversations import conversation_store

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
        count = run_async_in_new_loop(
            import_conversation(
                folder, conversation_id, progress=lambda done, total: bar.update(task, completed=done, total=total)
            )
        )
    if as_json:
        print_json({"conversation_id": conversation_id, "chunks": count})
    else:
        console().print(f"conversation {conversation_id}: {count} chunks")


@app.command()
def show(conversation_id: str, as_json: AsJson = False) -> None:
    """Show a conversation's chunks, the merged file and the summary."""
    begin()
    found = run_async_in_new_loop(describe(conversation_id))
    if as_json:
        print_json(found)
        return
    rows = [
        (c["id"], c["started_at"][:19], c["audio_key"] or "", (c["transcript"] or "").strip()) for c in found["chunks"]
    ]
    print_table(("chunk", "started (UTC)", "audio", "transcript"), rows, title=f"conversation {conversation_id}")
    out = console()
    if merged := found["merged"]:
        out.print(f"merged: {merged['path']} ({format_duration(merged['duration_seconds'])})", soft_wrap=True)
        for refused in merged["dropped"]:
            out.print(f"left out: {refused['name']}: {refused['reason']}", soft_wrap=True)
    if found["summary"]:
        out.print(f"summary: {found['summary']}", soft_wrap=True)


async def describe(conversation_id: str) -> dict[str, Any]:
    """A conversation and its results, as JSON types.

    Raises:
        ConfigurationError: There is no conversation of this id.
    """
    store = await conversation_store()
    conversation, chunks = await store.get(conversation_id), await store.chunks(conversation_id)
    if conversation is None and not chunks:
        raise ConfigurationError(f"no conversation {conversation_id!r}: import one with `worker conversations import`")
    merged = None
    if conversation is not None and conversation.merged_key is not None:
        try:
            merged = await read_manifest(conversation.merged_key)
        except FileNotFoundError:
            merged = None
    return {
        "conversation_id": conversation_id,
        "chunks": [asdict(chunk) for chunk in chunks],
        "merged": merged,
        "summary": conversation.summary if conversation is not None else None,
    }
