"""The search index: chunks of files, transcripts, summaries and notes, by vector and by word, in a LanceDB table.

Readers see a commit whole or not at all, never half of a file. Several processes may write and read at once.
It must never block the loop, mix the vectors of two embedders, or read text as a filter or as query syntax.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from worker.errors import IndexMismatch, MissingExtra, RetryLater, WorkerError
from worker.loops.loop_resources import loop_resource
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedder import Vectors, embedder
from worker.models.words import first_words
from worker.stores import upkeep
from worker.stores.chunks import Document, DocumentKind, FileChunks, FileState, Kind, Passage, Ranked, Totals
from worker.stores.conditions import all_of, among, any_of, equals, is_document
from worker.stores.lance import lance
from worker.stores.layout import (
    FILE,
    Made,
    id_of,
    rows_of_documents,
    rows_of_files,
    schema_of,
)
from worker.stores.settings import StoreSettings
from worker.stores.tables import opened

try:
    import pyarrow as pa
    import pyarrow.compute
except ImportError as error:
    raise MissingExtra("recall", "the search index") from error

if TYPE_CHECKING:
    import lancedb
    from lancedb.expr import Expr
    from lancedb.query import AsyncFTSQuery, AsyncVectorQuery

T = TypeVar("T")
Q = TypeVar("Q", "AsyncFTSQuery", "AsyncVectorQuery")

_ATTEMPTS = 8
_LONGEST_WAIT = 2.0
_BUSY = timedelta(seconds=10)
_AT_ONCE = 1000
"""The most paths in one filter, because a parser reads it."""

_PROBED = 20
"""The fewest parts of the vector index that a search reads."""
_REFINED = 2
"""A search compares this many times its limit exactly.

With both values, a search of 150,000 chunks found the same hundred nearest as a comparison of all.
"""


_COLUMNS = [field.name for field in fields(Passage) if field.name != "score"]


class IndexFailed(WorkerError):
    """The search index cannot be read or written: the disk is full, or its files are damaged or belong to others."""


class SearchIndex:
    """The chunks in a folder. Use `open` to make one.

    Args:
        table: The table of the chunks.
        embedder: The name of the embedder.
        folder: The index's folder, for error texts.
    """

    def __init__(self, table: lancedb.AsyncTable, embedder: Made, folder: Path) -> None:
        self._table = table
        self._embedder = embedder
        self._folder = folder
        self._schema = schema_of(embedder)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, folder: Path, embedder: str, dimensions: int) -> AsyncIterator[SearchIndex]:
        """Opens the index in a folder; makes it if it is missing.

        Args:
            folder: A folder of this machine.
            embedder: The name of the embedder; vectors of two embedders are never mixed.
            dimensions: The number of numbers in a vector.

        Raises:
            IndexMismatch: Another embedder made the index.
            ConfigurationError: The index cannot be opened.
            MissingExtra: LanceDB is not installed.
        """
        made = Made(embedder, dimensions)
        async with opened(folder, made) as (_, table):
            index = cls(table, made, folder)
            await index._write(lambda: upkeep.ensure_indexes(table))
            yield index

    async def replace_files(self, repository: str, files: Sequence[FileChunks]) -> None:
        """Replaces the stored chunks of these files with new ones, all at once.

        Raises:
            IndexMismatch: Another embedder has rebuilt the index meanwhile.
            RetryLater: Other writers came first too many times.
        """
        paths = [file.path for file in files]
        if len(set(paths)) < len(paths):
            raise ValueError("a file is given twice")
        if files:
            rows = await run_in_thread_pool(rows_of_files, self._schema, repository, files)
            await self._replace(rows, all_of(equals("repository", repository), among("path", paths)))

    async def touch_files(self, repository: str, files: Mapping[str, FileState]) -> None:
        """Stores a new size and time for files with unchanged content."""
        if files:
            values = {
                "id": [id_of(FILE, repository, path, 0) for path in files],
                "file_size": [state.size for state in files.values()],
                "file_changed_ns": [state.changed_ns for state in files.values()],
            }
            columns = pa.schema([self._schema.field(name) for name in values])
            rows = pa.table(values, schema=columns)
            await self._write(lambda: self._table.merge_insert("id").when_matched_update_all().execute(rows))

    async def remove_files(self, repository: str, paths: Collection[str]) -> None:
        """Removes files."""
        for some in _batches(list(paths)):
            await self._delete(all_of(equals("repository", repository), among("path", some)))

    async def remove_repository(self, repository: str) -> None:
        """Removes all files and chunks of a repository."""
        await self._delete(equals("repository", repository))

    async def files_of(self, repository: str) -> dict[str, FileState]:
        """The stored states of the repository's files, by path."""
        columns = ["path", "file_hash", "file_size", "file_changed_ns", "chunks", "left_out"]
        where = all_of(equals("kind", FILE), equals("repository", repository))
        found = await self._rows(where, columns)
        return await run_in_thread_pool(_states, found)

    async def totals(self, repository: str) -> Totals:
        """The numbers of files, chunks and bytes of the repository, counted in the index itself."""
        where = equals("repository", repository)
        found = await self._rows(where, ["kind", "file_size", "left_out"])
        return await run_in_thread_pool(_count, found)

    async def replace_documents(self, documents: Sequence[Document]) -> None:
        """Replaces the stored documents of the same kind and name, all at once; one without chunks is removed."""
        if documents:
            rows = await run_in_thread_pool(rows_of_documents, self._schema, documents)
            await self._replace(rows, any_of(is_document(one.kind, one.name) for one in documents))

    async def remove_documents(self, kind: DocumentKind, names: Collection[str]) -> None:
        """Removes documents."""
        for some in _batches(list(names)):
            await self._delete(all_of(equals("kind", kind), among("path", some)))

    async def search_vector(
        self, vector: Vectors, *, limit: int, repository: str | None = None, kinds: Collection[Kind] = ()
    ) -> list[Ranked]:
        """The chunks with the nearest vectors, the nearest first; of any kind if `kinds` is empty."""
        table = await self._checked()
        query = table.query().nearest_to(vector).distance_type("cosine")
        # No maximum: the few rows that pass a filter may lie in distant parts.
        query = query.minimum_nprobes(_PROBED).maximum_nprobes(0).refine_factor(_REFINED)
        query = _only(query, repository, kinds)
        return await _ranked(query, "_distance", limit, lambda distance: 1.0 - distance)

    async def search_text(
        self, text: str, *, limit: int, repository: str | None = None, kinds: Collection[Kind] = ()
    ) -> list[Ranked]:
        """The chunks with words of the text, those with the most and the rarest words first; the text has no syntax."""
        words = await run_in_thread_pool(first_words, text)
        if not words:
            return []
        table = await self._checked()
        match = lance("lancedb.query").MatchQuery(" ".join(words), "words")
        query = _only(table.query().nearest_to_text(match), repository, kinds)
        return await _ranked(query, "_score", limit, float)

    async def passages(self, ranked: Sequence[Ranked]) -> list[Passage]:
        """The chunks with these ids and scores, in this order; chunks that were removed meanwhile are missing.

        Reading a chunk costs more than finding it: read only the chunks that you show.
        """
        scores = dict(ranked)
        found = await self._rows(among("id", scores), _COLUMNS)
        rows = {row["id"]: row for row in await run_in_thread_pool(found.to_pylist)}
        return [Passage(**rows[key], score=score) for key, score in scores.items() if key in rows]

    async def _rows(self, where: Expr, columns: Sequence[str]) -> pa.Table:
        table = await self._checked()
        try:
            return await table.query().where(where).select(list(columns)).to_arrow()
        except (OSError, RuntimeError) as error:
            raise _failed(self._folder, "read", error) from error

    async def is_scattered(self, *, in_between: bool = False) -> bool:
        """Whether answers take longer, because the table has many files, or many rows outside of its indexes.

        Args:
            in_between: True while much more is about to be written; then a few rows outside do not count.
        """
        return await upkeep.is_scattered(self._table, in_between=in_between)

    async def optimize(self) -> bool:
        """Joins the table's files, indexes new rows, and drops old versions.

        Answers are right without it; it keeps them fast.

        Returns:
            False if another process or task is doing it, so that nothing was done.
        """
        done = False

        async def optimize() -> None:
            nonlocal done
            done = await upkeep.optimize(self._table, self._folder)

        await self._write(optimize)
        return done

    async def _replace(self, rows: pa.Table, where: Expr) -> None:
        async def merge() -> None:
            before = await self._table.version()
            # Only if rows may have to go, because removing them reads the whole table.
            if await self._count(where, 1):
                await self._merge(rows, where)
                return
            await self._merge(rows, None)
            is_alone = await self._table.version() == before + 1
            if not is_alone and await self._count(where, rows.num_rows + 1) > rows.num_rows:
                # Another writer has stored more chunks of the same file or document meanwhile.
                await self._merge(rows, where)

        await self._write(merge)

    async def _merge(self, rows: pa.Table, in_place_of: Expr | None) -> None:
        builder = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        if in_place_of is not None:
            builder = builder.when_not_matched_by_source_delete(in_place_of)
        # Typed for the sync table: the async one's answer is awaited.
        merged: Any = builder.execute(rows, on_bad_vectors="null")
        await merged

    async def _count(self, where: Expr, most: int) -> int:
        found = await self._table.query().where(where).select(["id"]).limit(most).to_arrow()
        return int(found.num_rows)

    async def _delete(self, where: Expr) -> None:
        await self._write(lambda: self._table.delete(where))

    async def _write(self, write: Callable[[], Awaitable[object]]) -> None:
        """Writes, and tries again if another writer came first; readers never see a write that failed."""
        await self._check()
        for attempt in range(_ATTEMPTS):
            try:
                await write()
            except (OSError, RuntimeError) as error:
                if not _CONFLICT.search(str(error)):
                    raise _failed(self._folder, "written", error) from error
                longest = min(_LONGEST_WAIT, 0.05 * 2**attempt)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - so that two writers do not meet again
            else:
                return
        raise RetryLater(_BUSY, f"others write the search index in {self._folder}")

    async def _checked(self) -> lancedb.AsyncTable:
        await self._check()
        return self._table

    async def _check(self) -> None:
        """Refuses an index that another process has rebuilt with another embedder."""
        made = Made.read(await self._table.schema())
        if made != self._embedder:
            raise IndexMismatch(made.describe(), self._embedder.describe(), str(self._folder))


_CONFLICT = re.compile("conflict|concurrent", re.IGNORECASE)
_PLACE_IN_LANCE = re.compile(r"^lance error: |LanceError\(\w+\): |, /\S+\.rs:\d+:\d+$")


def _failed(folder: Path, done: str, error: Exception) -> IndexFailed:
    said = " ".join(_PLACE_IN_LANCE.sub("", str(error)).split())
    return IndexFailed(f"the search index in {folder} cannot be {done}: {said}")


@loop_resource
async def search_index() -> AsyncIterator[SearchIndex]:
    """The configured index, for the configured embedder.

    Raises:
        IndexMismatch: Another embedder made the index.
        ConfigurationError: The index cannot be opened.
    """
    model = await embedder()
    async with SearchIndex.open(StoreSettings.in_force().index_dir, model.name, model.dimensions) as index:
        yield index


def _states(found: pa.Table) -> dict[str, FileState]:
    columns = [found.column(name).to_pylist() for name in found.schema.names]
    return {path: FileState(*state) for path, *state in zip(*columns, strict=True)}


def _count(found: pa.Table) -> Totals:
    of_files = found.filter(pa.compute.equal(found["kind"], FILE))
    reasons = Counter(of_files["left_out"].to_pylist())
    files = reasons.pop(None, 0)
    sizes = of_files.filter(pa.compute.is_null(of_files["left_out"]))["file_size"]
    chunks = found.num_rows - of_files.num_rows
    return Totals(files=files, chunks=chunks, bytes=pa.compute.sum(sizes).as_py() or 0, left_out=dict(reasons))


def _only(query: Q, repository: str | None, kinds: Collection[Kind]) -> Q:
    """The query, limited to a repository and to these kinds.

    An unlimited search never finds the rows of whole files, because they have no words.
    """
    wanted = [among("kind", kinds)] if kinds else []
    if repository is not None:
        wanted.append(equals("repository", repository))
    return query.where(all_of(*wanted)) if wanted else query


def _batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


async def _ranked(
    query: AsyncVectorQuery | AsyncFTSQuery, column: str, limit: int, score: Callable[[float], float]
) -> list[Ranked]:
    found = await query.select(["id", column]).limit(limit).to_arrow()
    return [
        Ranked(key, score(value)) for key, value in zip(found["id"].to_pylist(), found[column].to_pylist(), strict=True)
    ]
