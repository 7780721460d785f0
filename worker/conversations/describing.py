"""A conversation and its results, for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from worker.conversations.merging import read_manifest
from worker.errors import ConfigurationError
from worker.stores.conversations import conversation_store


async def describe(conversation_id: str) -> dict[str, Any]:
    """A conversation and its results, as JSON types.

    Raises:
        ConfigurationError: No conversation has that id.
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
