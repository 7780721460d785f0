"""Merges a conversation's audio chunks into one MP3.

The key of the result is made from the content of the chunks: merging a conversation twice gives the same object,
written once, and written whole or not at all.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.conversations.audio import Merged, Refused, Source, concatenate
from worker.conversations.settings import ConversationSettings
from worker.errors import NoContentFound, Unchanged
from worker.ground.durations import format_duration
from worker.ground.texts import counted
from worker.loops.thread_pool import cancel_requested, run_in_thread_pool
from worker.stores.conversations import Chunk, conversation_store
from worker.stores.objects import ObjectStore, object_store

_FORMAT = "mp3-1"
"""Part of the key. Raise its number when the same chunks give another result."""

Progress = Callable[[int, int], None]


class Stopped(Exception):
    """Ends the work in the thread after its caller was cancelled."""


@dataclass(frozen=True, slots=True)
class MergedConversation:
    """The result of a merge: the object's key, its duration, the included chunks, and the others with the reasons."""

    key: str
    duration_seconds: float
    sample_rate: int
    channels: int
    included: tuple[str, ...]
    dropped: tuple[Refused, ...]
    damaged: tuple[Refused, ...]

    @property
    def of_all(self) -> str:
        """The number of its chunks, and of all if some are missing."""
        return of_all(len(self.included), len(self.dropped))

    def describe(self) -> str:
        """One line for the history."""
        text = f"{self.of_all}, {self.duration_seconds:.1f} s, {self.key}"
        for word, refused in (("left out", self.dropped), ("damaged", self.damaged)):
            if refused:
                text += f"; {word}: " + ", ".join(f"{one.name} ({one.reason})" for one in refused)
        return text


def of_all(included: int, dropped: int) -> str:
    """The number of merged chunks in words, and that of all chunks if some are missing."""
    return counted(included, "chunk") if not dropped else f"{included} of {counted(included + dropped, 'chunk')}"


async def merge_conversation(conversation_id: str, *, progress: Progress | None = None) -> MergedConversation:
    """Merges the conversation's chunks, in the order of their times, into one MP3 in the object store.

    A chunk that cannot be decoded is left out, and named in the manifest beside the MP3 (`….json`).

    Args:
        conversation_id: The conversation.
        progress: Called in a thread after each chunk, with the number of finished chunks and the number of all.

    Raises:
        NoContentFound: There are no chunks with audio, or none can be decoded.
        Unchanged: The same chunks were merged before, and no file was cut short by its time limit.
        TimeoutError: The merge took longer than `WORKER_MERGE_TIMEOUT`.
    """
    limit = ConversationSettings.in_force().merge_timeout
    try:
        async with asyncio.timeout(limit.total_seconds()):
            return await _merge(conversation_id, progress)
    except TimeoutError as error:
        raise TimeoutError(f"merging took longer than {format_duration(limit)} (WORKER_MERGE_TIMEOUT)") from error


async def _merge(conversation_id: str, progress: Progress | None) -> MergedConversation:
    conversations, objects = await conversation_store(), await object_store()
    chunks = [chunk for chunk in await conversations.chunks(conversation_id) if chunk.audio_key]
    if not chunks:
        raise NoContentFound(f"conversation {conversation_id!r} has no audio")
    folder = await run_in_thread_pool(tempfile.TemporaryDirectory, prefix="merge-", ignore_cleanup_errors=True)
    try:
        sources, missing = await _fetch(chunks, objects, Path(folder.name))
        key = f"merged/{conversation_id}/{await run_in_thread_pool(_digest, sources)}.mp3"
        manifest_key = f"{key}.json"
        known = await _whole(objects, manifest_key, chunks)
        if known is not None:
            await conversations.save_merged(conversation_id, key)
            raise Unchanged(_unchanged(known))
        target = Path(folder.name) / "merged.mp3"
        merged = await run_in_thread_pool(_concatenate, sources, target, progress)
        result = _result(key, merged, missing)
        await objects.write(key, target)
        await objects.write(manifest_key, json.dumps(asdict(result), indent=2, ensure_ascii=False).encode())
        await conversations.save_merged(conversation_id, key)
        return result
    finally:
        await run_in_thread_pool(folder.cleanup)


async def _whole(objects: ObjectStore, manifest_key: str, chunks: Sequence[Chunk]) -> dict[str, Any] | None:
    """The manifest of a merge of the same chunks that was finished and read all their readable audio, or None."""
    try:
        manifest: dict[str, Any] = json.loads(await objects.read(manifest_key))
    except FileNotFoundError:
        return None  # it is written last: if it exists, all is written
    refused = [*manifest["dropped"], *manifest["damaged"]]
    told = {*manifest["included"], *(one["name"] for one in manifest["dropped"])}
    # A chunk without audio changes no key: the manifest must tell of it too.
    is_whole = told == {chunk.id for chunk in chunks} and not any(one.get("cut_short") for one in refused)
    return manifest if is_whole else None


def _unchanged(manifest: dict[str, Any]) -> str:
    """The reason for a skip, with the chunks that the merged file goes without."""
    if not manifest["dropped"]:
        return "unchanged"
    left_out = ", ".join(f"{one['name']} ({one['reason']})" for one in manifest["dropped"])
    return f"unchanged: {of_all(len(manifest['included']), len(manifest['dropped']))}; left out: {left_out}"


async def _fetch(chunks: Sequence[Chunk], objects: ObjectStore, folder: Path) -> tuple[list[Source], list[Refused]]:
    """The chunks as files, and the chunks with missing audio."""
    sources, missing = [], []
    for chunk in chunks:
        key = chunk.audio_key or ""
        try:
            sources.append(Source(chunk.id, await objects.fetch(key, folder)))
        except FileNotFoundError:
            missing.append(Refused(chunk.id, f"no object {key}"))
    if not sources:
        raise NoContentFound(f"the audio of {counted(len(chunks), 'chunk')} is missing, such as {missing[0].reason}")
    return sources, missing


def _digest(sources: Sequence[Source]) -> str:
    """The digest of the chunks, their order and the format: the same digest means the same result."""
    whole = hashlib.sha256(_FORMAT.encode())
    for source in sources:
        _stop_if_cancelled()
        with source.path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:32]


def _concatenate(sources: Sequence[Source], target: Path, progress: Progress | None) -> Merged:
    file_seconds = ConversationSettings.in_force().merge_file_timeout.total_seconds()
    merge = functools.partial(concatenate, check=_stop_if_cancelled, file_seconds=file_seconds, progress=progress)
    return merge(sources, target)


def _stop_if_cancelled() -> None:
    if cancel_requested():
        raise Stopped


def _result(key: str, merged: Merged, missing: Sequence[Refused]) -> MergedConversation:
    return MergedConversation(
        key=key,
        duration_seconds=merged.duration_seconds,
        sample_rate=merged.sample_rate,
        channels=merged.channels,
        included=merged.included,
        dropped=(*missing, *merged.dropped),
        damaged=merged.damaged,
    )


async def read_manifest(key: str) -> dict[str, object]:
    """The manifest of a merged object: the included chunks, and the others with the reasons.

    Raises:
        FileNotFoundError: There is no such manifest.
    """
    objects = await object_store()
    manifest: dict[str, object] = json.loads(await objects.read(f"{key}.json"))
    return manifest | {"path": objects.location(key)}
