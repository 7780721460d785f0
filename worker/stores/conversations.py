"""Conversations and their chunks, in SQL: in SQLite by default, or in the database of `WORKER_DATABASE_URL`.

A chunk belongs to a conversation in one of two ways: older data name the conversation in the chunk itself, newer data
link both in a table, so that a chunk can belong to several. Every query reads both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Column, ForeignKey, MetaData, String, Table, Text, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.errors import ConfigurationError
from worker.loops.loop_resources import loop_resource
from worker.stores.database import Instant, open_database, transaction

_schema = MetaData()

_conversations = Table(
    "conversations",
    _schema,
    Column("id", String(200), primary_key=True),
    Column("created_at", Instant(), nullable=False),
    Column("merged_key", String(500)),
    Column("summary", Text),
    Column("summary_digest", String(64)),
)

_chunks = Table(
    "chunks",
    _schema,
    Column("id", String(200), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id"), index=True),
    Column("started_at", Instant(), nullable=False),
    Column("audio_key", String(500)),
    Column("transcript", Text),
)

_links = Table(
    "chunk_conversations",
    _schema,
    Column("chunk_id", ForeignKey("chunks.id"), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id"), primary_key=True, index=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a conversation, with the key of its audio in the object store, its transcript, or both."""

    id: str
    started_at: datetime
    audio_key: str | None = None
    transcript: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation and its results: the merged audio's key, the summary, and the digest of the summary's input."""

    id: str
    created_at: datetime
    merged_key: str | None = None
    summary: str | None = None
    summary_digest: str | None = None


class ConversationStore:
    """Conversations in a database.

    Every method raises `DatabaseFailed` if the database fails.

    Args:
        engine: The database; its tables must exist. `conversation_store` makes them.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, conversation_id: str) -> Conversation | None:
        """The conversation, or None."""
        query = select(_conversations).where(_conversations.c.id == conversation_id)
        async with transaction(self._engine) as connection:
            row = (await connection.execute(query)).mappings().first()
        return Conversation(**row) if row is not None else None

    async def chunks(self, conversation_id: str) -> list[Chunk]:
        """The conversation's chunks, linked in either way, each once, ordered by time and then by id."""
        linked = select(_links.c.chunk_id).where(_links.c.conversation_id == conversation_id)
        query = (
            select(_chunks.c.id, _chunks.c.started_at, _chunks.c.audio_key, _chunks.c.transcript)
            .where(or_(_chunks.c.conversation_id == conversation_id, _chunks.c.id.in_(linked)))
            .order_by(_chunks.c.started_at, _chunks.c.id)
        )
        async with transaction(self._engine) as connection:
            return [Chunk(**row) for row in (await connection.execute(query)).mappings()]

    async def create(self, conversation_id: str, chunks: Iterable[Chunk]) -> None:
        """Adds a conversation with these chunks, linked through the table.

        Raises:
            ConfigurationError: The conversation or one of the chunks exists already.
        """
        rows = [
            {"id": c.id, "started_at": c.started_at, "audio_key": c.audio_key, "transcript": c.transcript}
            for c in chunks
        ]
        try:
            async with transaction(self._engine) as connection:
                await _insert_conversation(connection, conversation_id)
                if rows:
                    await connection.execute(_chunks.insert(), rows)
                    links = [{"chunk_id": row["id"], "conversation_id": conversation_id} for row in rows]
                    await connection.execute(_links.insert(), links)
        except IntegrityError as error:
            raise ConfigurationError(
                f"conversation {conversation_id!r}, or one of its chunks, exists already: choose another id"
            ) from error

    async def save_merged(self, conversation_id: str, key: str) -> None:
        """Stores the key of the merged audio."""
        await self._update(conversation_id, merged_key=key)

    async def save_summary(self, conversation_id: str, summary: str, digest: str) -> None:
        """Stores the summary, and the digest of its input."""
        await self._update(conversation_id, summary=summary, summary_digest=digest)

    async def _update(self, conversation_id: str, **values: str) -> None:
        try:
            await self._update_or_insert(conversation_id, values)
        except IntegrityError:
            # Another has recorded the conversation meanwhile.
            await self._update_or_insert(conversation_id, values)

    async def _update_or_insert(self, conversation_id: str, values: Mapping[str, str]) -> None:
        statement = _conversations.update().where(_conversations.c.id == conversation_id).values(**values)
        async with transaction(self._engine) as connection:
            if (await connection.execute(statement)).rowcount == 0:
                # Older chunks may name a conversation that was never stored.
                await _insert_conversation(connection, conversation_id)
                await connection.execute(statement)


async def _insert_conversation(connection: AsyncConnection, conversation_id: str) -> None:
    await connection.execute(_conversations.insert().values(id=conversation_id, created_at=datetime.now(UTC)))


@loop_resource
async def conversation_store() -> AsyncIterator[ConversationStore]:
    """The conversations of the configured database, upgraded at its first use. One engine per loop.

    Raises:
        ConfigurationError: `WORKER_DATABASE_URL` cannot be read, or names a driver that is not installed.
    """
    async with open_database() as engine:
        yield ConversationStore(engine)
