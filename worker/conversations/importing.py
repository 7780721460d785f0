"""Imports a folder of recordings as a conversation: audio files in name order, each with its transcript."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from worker.errors import ConfigurationError
from worker.loops.thread_pool import run_in_thread_pool
from worker.stores.conversations import Chunk, conversation_store
from worker.stores.objects import object_store

SUFFIXES = {".wav", ".mp3", ".m4a", ".aac", ".mp4", ".ogg", ".oga", ".opus", ".webm", ".flac"}
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file of the folder that is no part of the conversation, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import: the number of chunks, and the files that were left out."""

    chunks: int
    left_out: tuple[LeftOut, ...]


async def import_conversation(
    folder: Path, conversation_id: str, *, progress: Callable[[int, int], None] | None = None
) -> Imported:
    """Stores the folder's audio files, in name order, with the transcripts beside them (`NAME.txt`).

    Returns:
        The number of chunks, and all else that lies in the folder, but for hidden files.

    Raises:
        ConfigurationError: The folder does not exist or holds no audio files, or the id is taken or not valid.
    """
    if not _SAFE_ID.fullmatch(conversation_id):
        raise ConfigurationError(
            f"{conversation_id!r} is not a valid conversation id: write at most 100 letters, digits, '_', '-' and '.'"
        )
    files, left_out = await run_in_thread_pool(_audio_files, folder)
    conversations, objects = await conversation_store(), await object_store()
    if await conversations.get(conversation_id) is not None:
        raise ConfigurationError(f"conversation {conversation_id!r} exists already: choose another with --id")
    chunks = []
    now = datetime.now(UTC)
    for number, file in enumerate(files):
        key = f"chunks/{conversation_id}/{file.name}"
        await objects.write(key, file)
        # A second apart: only their order matters, and the names give no more.
        started_at = now + timedelta(seconds=number)
        transcript = await run_in_thread_pool(_transcript, file)
        chunk_id = f"{conversation_id}/{file.name}"
        chunks.append(Chunk(id=chunk_id, started_at=started_at, audio_key=key, transcript=transcript))
        if progress is not None:
            progress(number + 1, len(files))
    await conversations.create(conversation_id, chunks)
    return Imported(len(chunks), left_out)


def _audio_files(folder: Path) -> tuple[list[Path], tuple[LeftOut, ...]]:
    """The audio files in name order, and the files that are left out."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder")
    found = sorted(folder.iterdir())
    files = [file for file in found if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not files:
        raise ConfigurationError(f"{folder} holds no audio files ({', '.join(sorted(SUFFIXES))})")
    used = {*files, *(file.with_suffix(".txt") for file in files)}
    others = [file for file in found if file not in used and not file.name.startswith(".")]
    return files, tuple(LeftOut(file.name, _why_not(file)) for file in others)


def _why_not(file: Path) -> str:
    if not file.is_file():
        return "a folder" if file.is_dir() else "not a file"
    return "a transcript without an audio file" if file.suffix == ".txt" else "not an audio file"


def _transcript(file: Path) -> str | None:
    beside = file.with_suffix(".txt")
    return beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else None
