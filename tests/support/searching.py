"""What searches of the index find, with what is stored of it."""

from __future__ import annotations

from collections.abc import Collection

from worker.models.embedder import Vectors
from worker.stores.chunks import Kind, Passage
from worker.stores.index import SearchIndex


async def found_by_vector(
    index: SearchIndex, vector: Vectors, *, limit: int, repository: str | None = None, kinds: Collection[Kind] = ()
) -> list[Passage]:
    """The chunks with the nearest vectors."""
    return await index.passages(await index.search_vector(vector, limit=limit, repository=repository, kinds=kinds))


async def found_by_text(
    index: SearchIndex, text: str, *, limit: int, repository: str | None = None, kinds: Collection[Kind] = ()
) -> list[Passage]:
    """The chunks with these words."""
    return await index.passages(await index.search_text(text, limit=limit, repository=repository, kinds=kinds))
