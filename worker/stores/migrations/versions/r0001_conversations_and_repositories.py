"""Conversations, their chunks, and repositories.

Tables that are there stay as they are: so a database from before there were revisions is adopted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Makes the tables and indexes that are missing."""
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("merged_key", sa.String(500)),
        sa.Column("summary", sa.Text),
        sa.Column("summary_digest", sa.String(64)),
        if_not_exists=True,
    )
    op.create_table(
        "chunks",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("conversation_id", sa.String(200), sa.ForeignKey("conversations.id")),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("audio_key", sa.String(500)),
        sa.Column("transcript", sa.Text),
        if_not_exists=True,
    )
    op.create_table(
        "chunk_conversations",
        sa.Column("chunk_id", sa.String(200), sa.ForeignKey("chunks.id"), primary_key=True),
        sa.Column("conversation_id", sa.String(200), sa.ForeignKey("conversations.id"), primary_key=True),
        if_not_exists=True,
    )
    op.create_table(
        "repositories",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("include", sa.JSON, nullable=False),
        sa.Column("exclude", sa.JSON, nullable=False),
        sa.Column("added_at", _TIME, nullable=False),
        sa.Column("sync_state", sa.String(20)),
        sa.Column("sync_text", sa.Text),
        sa.Column("started_at", _TIME),
        sa.Column("updated_at", _TIME),
        sa.Column("scanned", sa.Integer),
        sa.Column("matching", sa.Integer),
        sa.Column("done", sa.Integer),
        if_not_exists=True,
    )
    for table in ("chunks", "chunk_conversations"):
        op.create_index(f"ix_{table}_conversation_id", table, ["conversation_id"], if_not_exists=True)
