"""Puts what is no file into the index: notes, and the transcripts and summaries of conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from worker.conversations.summarizing import clean
from worker.errors import ConfigurationError, NoContentFound
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedder import embedder
from worker.recall.chunking import cut
from worker.settings import settings_in_force
from worker.stores.chunks import Document, DocumentKind, NewChunk, searched
from worker.stores.conversations import conversation_store
from worker.stores.index import search_index
from worker.stores.rebuilding import rebuild

LONGEST_NOTE = 50_000
MOST_TAGS = 20
LONGEST_TAG = 100


@dataclass(frozen=True, slots=True)
class Indexed:
    """In how many chunks something was indexed.

    Attributes:
        is_scattered: The index lies in so many files that somebody should call `optimize`.
    """

    chunks: int
    is_scattered: bool

    def describe(self) -> str:
        """One line for the history."""
        return f"indexed in {self.chunks} chunk{'s' if self.chunks != 1 else ''}"


async def capture(note_id: str, text: str, tags: Sequence[str] = (), *, created: datetime | None = None) -> Indexed:
    """Keeps a note in the index; the same id again replaces it.

    Raises:
        NoContentFound: It is blank.
        ConfigurationError: It is too long, or has tags that are; or the index was made by another embedder.
        RetryLater: The embedder asks to come back later, or others write too much.
    """
    check_note(text, tags)
    if not text.strip():
        raise NoContentFound("the note is blank")
    label = ", ".join(tags) or None
    document = await _document("note", note_id, text, created or datetime.now(UTC), label)
    return await _keep([document])


def check_note(text: str, tags: Sequence[str]) -> None:
    """Refuses what is no note.

    Raises:
        ConfigurationError: It is too long, or has too many tags, or too long ones.
    """
    if len(text) > LONGEST_NOTE:
        raise ConfigurationError(f"the note has {len(text)} characters: keep it to {LONGEST_NOTE}")
    if len(tags) > MOST_TAGS or any(not tag.strip() or len(tag) > LONGEST_TAG for tag in tags):
        raise ConfigurationError(f"at most {MOST_TAGS} tags, each of 1 to {LONGEST_TAG} characters")


async def index_conversation(conversation_id: str) -> Indexed:
    """Has a conversation's transcript and summary found, in place of what was indexed of it before.

    Raises:
        NoContentFound: There is neither; what was indexed of it is gone.
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
    """Has the index lie in few files, so that answers stay fast; false: somebody else is at it."""
    return await (await search_index()).optimize()


async def rebuild_index(progress: Callable[[int, int], None] | None = None) -> int:
    """Makes the index anew for the configured embedder.

    Returns:
        How many chunks there are.

    Raises:
        ConfigurationError: It cannot be opened.
        RetryLater, ModelUnavailable, Fatal: What the embedder says.
    """
    return await rebuild(settings_in_force().index_dir, await embedder(), progress)


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
