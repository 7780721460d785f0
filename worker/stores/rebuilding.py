"""Rebuilds the search index for another embedder, beside the old index, which stays until the new one is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import Fatal
from worker.ground.logs import get_logger
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedder import Embedder, Vectors, refuses_not_everything
from worker.stores import upkeep
from worker.stores.lance import lance
from worker.stores.layout import FILE, Made, as_table, schema_of, searched_of, words_in
from worker.stores.tables import TABLE, opened

if TYPE_CHECKING:
    import pyarrow as pa

logger = get_logger(__name__)

_REBUILT = "rebuilt"
_AT_ONCE = 1000


async def rebuild(folder: Path, model: Embedder, progress: Callable[[int, int], None] | None = None) -> int:
    """Rebuilds an index with another embedder: the same chunks with new vectors, put in place all at once.

    Until then, and after an interrupt, the old index stays as it was. Concurrent writes of others may be lost.

    Returns:
        The number of chunks.

    Raises:
        ConfigurationError: The index cannot be opened.
        RetryLater, ModelUnavailable, Fatal: The embedder's error.
    """
    made = Made(model.name, model.dimensions)
    async with opened(folder, made) as (connection, table):
        rebuilt = await connection.create_table(_REBUILT, schema=schema_of(made), mode="overwrite")
        with contextlib.closing(rebuilt):
            count, total = 0, await table.count_rows()
            kept = [name for name in schema_of(made).names if name not in {"vector", "words"}]
            async for batch in await table.query().select(kept).to_batches(max_batch_length=_AT_ONCE):
                rows = await run_in_thread_pool(batch.to_pylist)
                chunks = [row for row in rows if row["kind"] != FILE]
                vectors = await _vectors(model, chunks)
                await rebuilt.add(await run_in_thread_pool(_rows_anew, schema_of(made), rows, vectors))
                count += len(chunks)
                if progress is not None:
                    progress(count, total)
        reader = await run_in_thread_pool(_reader, folder, schema_of(made).names)
        anew = await connection.create_table(TABLE, reader, mode="overwrite", on_bad_vectors="null")
        with contextlib.closing(anew):
            await upkeep.ensure_indexes(anew)
            await upkeep.optimize(anew, folder)
        await connection.drop_table(_REBUILT)
    return count


async def _vectors(model: Embedder, chunks: Sequence[dict[str, Any]]) -> Sequence[Vectors | None]:
    """A vector for each chunk, or None if the embedder refuses its text; such a chunk is still found by its words."""
    texts = [searched_of(row["kind"], row["path"], row["symbol"], row["text"]) for row in chunks]
    try:
        return list(await model.embed(texts))
    except (Fatal, ValueError):
        await refuses_not_everything(model)
    vectors: list[Vectors | None] = []
    for row, text in zip(chunks, texts, strict=True):
        try:
            vectors.extend(await model.embed([text]))
        except (Fatal, ValueError) as error:
            logger.warning("the embedder refuses a chunk", path=row["path"], line=row["start_line"], error=str(error))
            vectors.append(None)
    return vectors


def _rows_anew(schema: pa.Schema, rows: Sequence[dict[str, Any]], vectors: Sequence[Vectors | None]) -> pa.Table:
    following = iter(vectors)
    for row in rows:
        if row["kind"] != FILE:
            row["words"] = words_in(row["kind"], row["path"], row["symbol"], row["text"])
    return as_table(schema, rows, [None if row["kind"] == FILE else next(following) for row in rows])


def _reader(folder: Path, columns: Sequence[str]) -> pa.RecordBatchReader:
    """Reads the rebuilt rows while they are written to their place, so that they need not fit into memory."""
    table = lance("lancedb").connect(folder).open_table(_REBUILT)
    return table.search().select(list(columns)).to_batches(_AT_ONCE)
