"""Puts texts outside of files into the index: notes, and the transcripts and summaries of conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from worker.errors import ConfigurationError, NoContentFound
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedder import embedder
from worker.recall.chunking import cut
from worker.stores.chunks import Document, DocumentKind, NewChunk, searched
from worker.stores.conversations import conversation_store
from worker.stores.index import search_index
from worker.stores.rebuilding import rebuild
from worker.stores.settings import StoreSettings
from worker.stores.transcripts import clean

LONGEST_NOTE = 50_000
MOST_TAGS = 20
LONGEST_TAG = 100


@dataclass(frozen=True, slots=True)
class Indexed:
    """The number of chunks that were indexed.

    Attributes:
        is_scattered: True if the index has so many files that it should be optimized.
    """

    chunks: int
    is_scattered: bool

    def describe(self) -> str:
        """One line for the history."""
        return f"indexed in {self.chunks} chunk{'s' if self.chunks != 1 else ''}"


async def capture(note_id: str, text: str, tags: Sequence[str] = (), *, created: datetime | None = None) -> Indexed:
    """Stores a note in the index, in place of a note with the same id.

    Raises:
        NoContentFound: The note is blank.
        ConfigurationError: The note or its tags are too long, or another embedder made the index.
        RetryLater: The embedder asks to come back later, or other writers came first too many times.
    """
    check_note(text, tags)
    if not text.strip():
        raise NoContentFound("the note is blank")
    label = ", ".join(tags) or None
    document = await _document("note", note_id, text, created or datetime.now(UTC), label)
    return await _keep([document])


def check_note(text: str, tags: Sequence[str]) -> None:
    """Refuses a note that is too long.

    Raises:
        ConfigurationError: The note is too long, or it has too many tags, or a tag is empty or too long.
    """
    if len(text) > LONGEST_NOTE:
        raise ConfigurationError(f"the note has {len(text)} characters: keep it to {LONGEST_NOTE}")
    if len(tags) > MOST_TAGS or any(not tag.strip() or len(tag) > LONGEST_TAG for tag in tags):
        raise ConfigurationError(f"at most {MOST_TAGS} tags, each of 1 to {LONGEST_TAG} characters")


async def index_conversation(conversation_id: str) -> Indexed:
    """Indexes a conversation's transcript and summary, in place of the ones that the index has.

    Raises:
        NoContentFound: There is no transcript and no summary; the indexed ones were removed.
    """
    store = await conversation_store()
    known = await store.get(conversation_id)
    chunks = await store.chunks(conversation_id)
    transcript = await run_in_thread_pool(clean, [chunk.transcript or "" for chunk in chunks])
    created = min((chunk.started_at for chunk in chunks), default=known.created_at if known else datetime.now(UTC))
    summary = known.summary if known is not None else None
    documents = [
        await _document("transcript", conversation_id, transcript, created, None),
        await _document("summary", conversation_id, summary or "", created, None),
    ]
    indexed = await _keep(documents)
    if indexed.chunks == 0:
        raise NoContentFound(f"conversation {conversation_id!r} has neither a transcript nor a summary")
    return indexed


async def optimize_index() -> bool:
    """Joins the index's files, so that answers stay fast; False if another process is doing it."""
    return await (await search_index()).optimize()


async def rebuild_index(progress: Callable[[int, int], None] | None = None) -> int:
    """Rebuilds the index for the configured embedder.

    Returns:
        The number of chunks.

    Raises:
        ConfigurationError: The index cannot be opened.
        RetryLater, ModelUnavailable, Fatal: The embedder's error.
    """
    return await rebuild(StoreSettings.in_force().index_dir, await embedder(), progress)


async def _keep(documents: Sequence[Document]) -> Indexed:
    index = await search_index()
    await index.replace_documents(documents)
    return Indexed(sum(len(document.chunks) for document in documents), await index.is_scattered())


async def _document(kind: DocumentKind, name: str, text: str, created: datetime, label: str | None) -> Document:
    chunks = await run_in_thread_pool(_chunks, text, label)
    vectors = await (await embedder()).embed([searched("", label, chunk.text) for chunk in chunks])
    return Document(kind=kind, name=name, created=created, chunks=chunks, vectors=vectors)


def _chunks(text: str, label: str | None) -> list[NewChunk]:
    return [
        NewChunk(text=text[piece.start : piece.end], start_line=piece.start_line, end_line=piece.end_line, symbol=label)
        for piece in cut(text)
        if text[piece.start : piece.end].strip()
    ]
