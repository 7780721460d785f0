"""The search index: chunks of files, transcripts, summaries and notes, by vector and by word, in a LanceDB table.

A commit is seen whole or not at all: no reader meets half of a file. Several processes may write and read at once.
It must never block the loop, mix the vectors of two embedders, or take text for a filter or for a query's syntax.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from worker.bridge import loop_resource, run_in_thread_pool
from worker.errors import ConfigurationError, IndexMismatch, MissingExtra, RetryLater
from worker.models.embedder import Embedder, embedder
from worker.settings import settings_in_force
from worker.stores.words import words_of

try:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("recall", "the search index") from error

if TYPE_CHECKING:
    import lancedb
    from lancedb.expr import Expr
    from lancedb.query import AsyncFTSQuery, AsyncVectorQuery

T = TypeVar("T")

Vectors = NDArray[np.float32]
Kind = Literal["code", "transcript", "summary", "note"]
DocumentKind = Literal["transcript", "summary", "note"]

MOST_WORDS = 200
"""Of a question: more of them find nothing more, and take longer."""

_LAYOUT = "1"
_TABLE = "chunks"
_REBUILT = "rebuilt"
_FILE = "file"
_WORDS_INDEX = "words_idx"
_ATTEMPTS = 8
_LONGEST_WAIT = 2.0
_BUSY = timedelta(seconds=10)
# A reader may be at work on what was the newest version when it began.
_OLD = timedelta(minutes=5)
_MANY_FILES = 60
_MANY_ROWS = 5000
_AT_ONCE = 1000
"""Paths in one filter: it is read by a parser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A piece of a text that is found as one: some lines of it, from `start_line` (the first is 1) to `end_line`."""

    text: str
    start_line: int
    end_line: int
    symbol: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChunks:
    """A file as it was read, its chunks, and a vector for each; a file without chunks is remembered too.

    Attributes:
        path: Within its repository, with `/`.
        hash: `hash_of` its content.
        changed_ns: When the system says that it was last changed.
        left_out: Why it has no chunks and never will, as long as it stays as it is.
    """

    path: str
    language: str | None
    hash: str
    size: int
    changed_ns: int
    chunks: Sequence[NewChunk]
    vectors: Vectors
    left_out: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text that is no file: a conversation's transcript or summary, or a note.

    Attributes:
        name: The conversation's id, or the note's: with the kind it says which document this replaces.
    """

    kind: DocumentKind
    name: str
    created: datetime
    chunks: Sequence[NewChunk]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class FileState:
    """What is stored of a file: what it was like when it was read, and how many chunks it has."""

    hash: str
    size: int
    changed_ns: int
    chunks: int
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """How much is stored of a repository.

    Attributes:
        left_out: How many more files have no chunks, by the reason.
    """

    files: int
    chunks: int
    bytes: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found.

    Attributes:
        repository: Empty for what is in none.
        path: The file's, or the document's name.
        file_hash: Of the file it was cut from; of documents there is none.
        score: Higher is better; only of the same search comparable.
    """

    id: str
    kind: Kind
    repository: str
    path: str
    start_line: int
    end_line: int
    language: str | None
    symbol: str | None
    text: str
    file_hash: str | None
    file_size: int | None
    created: datetime
    score: float


_COLUMNS = [field.name for field in fields(Passage) if field.name != "score"]


def searched(path: str, symbol: str | None, text: str) -> str:
    """What is searched for a chunk, by vector and by word: its text below a title.

    Who asks for a thing by name means its definition, and names its file.

    Args:
        path: Of a file; of a document, nothing.
        symbol: The chunk's.
        text: The chunk's.
    """
    return f"{path} {symbol or ''}\n{text}"


def hash_of(content: bytes) -> str:
    """The hash by which a file's content is recognised."""
    return hashlib.sha256(content).hexdigest()


class SearchIndex:
    """The chunks in a folder; made by `open`.

    Args:
        table: Of the chunks.
        embedder: Who makes the vectors.
        folder: For messages.
    """

    def __init__(self, table: lancedb.AsyncTable, embedder: Made, folder: Path) -> None:
        self._table = table
        self._embedder = embedder
        self._folder = folder
        self._schema = _schema(embedder)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, folder: Path, embedder: str, dimensions: int) -> AsyncIterator[SearchIndex]:
        """Opens the index in a folder, made where there is none.

        Args:
            folder: A folder of this machine.
            embedder: Says who makes the vectors; another one's are never mixed with them.
            dimensions: Numbers in a vector.

        Raises:
            IndexMismatch: Another embedder made it.
            ConfigurationError: It cannot be opened.
            MissingExtra: LanceDB is not installed.
        """
        made = Made(embedder, dimensions)
        async with _opened(folder, made) as (_, table):
            index = cls(table, made, folder)
            await index._check()
            await _ensure_words_index(table)
            yield index

    async def replace_files(self, repository: str, files: Sequence[FileChunks]) -> None:
        """Puts the chunks of these files in the place of what was stored of them, all at once.

        Raises:
            IndexMismatch: Another embedder has made the index anew meanwhile.
            RetryLater: Others write too much.
        """
        paths = [file.path for file in files]
        if len(set(paths)) < len(paths):
            raise ValueError("a file is given twice")
        if files:
            rows = await run_in_thread_pool(_rows_of_files, self._schema, repository, files)
            await self._replace(rows, _all(_is("repository", repository), _among("path", paths)))

    async def touch_files(self, repository: str, files: Mapping[str, FileState]) -> None:
        """Remembers another size and time of files whose content is the same."""
        if files:
            values = {
                "id": [_id(_FILE, repository, path, 0) for path in files],
                "file_size": [state.size for state in files.values()],
                "file_changed_ns": [state.changed_ns for state in files.values()],
            }
            columns = pa.schema([self._schema.field(name) for name in values])
            rows = pa.table(values, schema=columns)
            await self._write(lambda: self._table.merge_insert("id").when_matched_update_all().execute(rows))

    async def remove_files(self, repository: str, paths: Collection[str]) -> None:
        """Forgets files."""
        for some in _batches(list(paths)):
            await self._delete(_all(_is("repository", repository), _among("path", some)))

    async def remove_repository(self, repository: str) -> None:
        """Forgets everything of a repository."""
        await self._delete(_is("repository", repository))

    async def files_of(self, repository: str) -> dict[str, FileState]:
        """What is stored of the repository's files, by path."""
        columns = ["path", "file_hash", "file_size", "file_changed_ns", "chunks", "left_out"]
        where = _all(_is("kind", _FILE), _is("repository", repository))
        found = await (await self._checked()).query().where(where).select(columns).to_arrow()
        return await run_in_thread_pool(_states, found)

    async def totals(self, repository: str) -> Totals:
        """How much is stored of the repository, counted in what is stored."""
        where = _is("repository", repository)
        found = await (await self._checked()).query().where(where).select(["kind", "file_size", "left_out"]).to_arrow()
        return await run_in_thread_pool(_count, found)

    async def replace_documents(self, documents: Sequence[Document]) -> None:
        """Puts documents in the place of those of the same kind and name, all at once; one without chunks is gone."""
        kinds = {document.kind for document in documents}
        for kind in sorted(kinds):
            same = [document for document in documents if document.kind == kind]
            rows = await run_in_thread_pool(_rows_of_documents, self._schema, same)
            names = [document.name for document in same]
            await self._replace(rows, _all(_is("kind", kind), _among("path", names)))

    async def remove_documents(self, kind: DocumentKind, names: Collection[str]) -> None:
        """Forgets documents."""
        for some in _batches(list(names)):
            await self._delete(_all(_is("kind", kind), _among("path", some)))

    async def search_vector(
        self, vector: Vectors, *, limit: int, repository: str | None = None, kinds: Collection[Kind] = ()
    ) -> list[Passage]:
        """The chunks whose vectors are nearest to this one, the nearest first; `kinds` empty: of any kind."""
        table = await self._checked()
        query = table.query().nearest_to(vector).distance_type("cosine").where(_wanted(repository, kinds))
        return await _found(query, "_distance", limit, lambda distance: 1.0 - distance)

    async def search_text(
        self, text: str, *, limit: int, repository: str | None = None, kinds: Collection[Kind] = ()
    ) -> list[Passage]:
        """The chunks that have the words of the text, those with the rarest and most first; nothing is syntax."""
        words = await run_in_thread_pool(_first_words, text)
        if not words:
            return []
        table = await self._checked()
        match = _lance("lancedb.query").MatchQuery(" ".join(words), "words")
        query = table.query().nearest_to_text(match).where(_wanted(repository, kinds))
        return await _found(query, "_score", limit, float)

    async def is_scattered(self) -> bool:
        """Whether it lies in so many files, or so much of it is not indexed by word, that answers take longer."""
        indexes = await self._table.list_indices()
        if any((one.num_unindexed_rows or 0) > _MANY_ROWS for one in indexes):
            return True
        stats: Any = await self._table.stats()  # a dict, whatever its annotation says
        return bool(stats["fragment_stats"]["num_fragments"] > _MANY_FILES)

    async def optimize(self) -> None:
        """Makes few files of many, indexes the words of what is new, and drops what no reader needs any more.

        Nothing has to call it for answers to be right: only for them to stay fast.
        """
        await self._write(lambda: self._table.optimize(cleanup_older_than=_OLD))

    async def _replace(self, rows: pa.Table, where: Expr) -> None:
        def merge() -> Awaitable[object]:
            builder = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            # Typed for the sync table: the async one's answer is awaited.
            merged: Any = builder.when_not_matched_by_source_delete(where).execute(rows, on_bad_vectors="null")
            return cast("Awaitable[object]", merged)

        await self._write(merge)

    async def _delete(self, where: Expr) -> None:
        await self._write(lambda: self._table.delete(where))

    async def _write(self, write: Callable[[], Awaitable[object]]) -> None:
        """Writes, again where another writer came first: nothing of an attempt that failed is ever seen."""
        await self._check()
        for attempt in range(_ATTEMPTS):
            try:
                await write()
            except RuntimeError as error:
                if not _CONFLICT.search(str(error)):
                    raise
                longest = min(_LONGEST_WAIT, 0.05 * 2**attempt)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - so that writers part ways
            else:
                return
        raise RetryLater(_BUSY, f"others write the search index in {self._folder}")

    async def _checked(self) -> lancedb.AsyncTable:
        await self._check()
        return self._table

    async def _check(self) -> None:
        """Another process may have made the index anew, with another embedder."""
        made = Made.read(await self._table.schema())
        if made != self._embedder:
            raise IndexMismatch(made.describe(), self._embedder.describe(), str(self._folder))


_CONFLICT = re.compile("conflict|concurrent", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Made:
    """Who made the vectors of an index."""

    embedder: str
    dimensions: int
    layout: str = _LAYOUT

    @classmethod
    def read(cls, schema: pa.Schema) -> Made:
        """What a table's schema says."""
        said = {name.decode(): value.decode() for name, value in (schema.metadata or {}).items()}
        return cls(said.get("embedder", ""), int(said.get("dimensions", "0")), said.get("layout", ""))

    def describe(self) -> str:
        """For people."""
        layout = "" if self.layout == _LAYOUT else f", layout {self.layout}"
        return f"{self.embedder} ({self.dimensions} dimensions{layout})"


@loop_resource
async def search_index() -> AsyncIterator[SearchIndex]:
    """The configured index, for the configured embedder.

    Raises:
        IndexMismatch: Another embedder made it.
        ConfigurationError: It cannot be opened.
    """
    model = await embedder()
    async with SearchIndex.open(settings_in_force().index_dir, model.name, model.dimensions) as index:
        yield index


async def rebuild(folder: Path, model: Embedder, progress: Callable[[int, int], None] | None = None) -> int:
    """Makes an index anew for another embedder: the same chunks with vectors of its own, put in place all at once.

    Until then, and if it is interrupted, the index is what it was. What others write meanwhile may be lost.

    Returns:
        How many chunks there are.

    Raises:
        ConfigurationError: It cannot be opened.
        RetryLater, ModelUnavailable, Fatal: What the embedder says.
    """
    made = Made(model.name, model.dimensions)
    async with _opened(folder, made) as (connection, table):
        rebuilt = await connection.create_table(_REBUILT, schema=_schema(made), mode="overwrite")
        with contextlib.closing(rebuilt):
            count, total = 0, await table.count_rows()
            kept = [name for name in _schema(made).names if name not in {"vector", "words"}]
            async for batch in await table.query().select(kept).to_batches(max_batch_length=_AT_ONCE):
                rows = await run_in_thread_pool(batch.to_pylist)
                chunks = [row for row in rows if row["kind"] != _FILE]
                vectors = await model.embed(
                    [_searched(row["kind"], row["path"], row["symbol"], row["text"]) for row in chunks]
                )
                await rebuilt.add(await run_in_thread_pool(_rows_anew, _schema(made), rows, vectors))
                count += len(chunks)
                if progress is not None:
                    progress(count, total)
        reader = await run_in_thread_pool(_reader, folder, _schema(made).names)
        anew = await connection.create_table(_TABLE, reader, mode="overwrite", on_bad_vectors="null")
        with contextlib.closing(anew):
            await _ensure_words_index(anew)
            await anew.optimize(cleanup_older_than=_OLD)
        await connection.drop_table(_REBUILT)
    return count


def _rows_anew(schema: pa.Schema, rows: Sequence[dict[str, Any]], vectors: Vectors) -> pa.Table:
    following = iter(vectors)
    for row in rows:
        if row["kind"] != _FILE:
            row["words"] = _words(row["kind"], row["path"], row["symbol"], row["text"])
    return _as_table(schema, rows, [None if row["kind"] == _FILE else next(following) for row in rows])


def _reader(folder: Path, columns: Sequence[str]) -> pa.RecordBatchReader:
    """Reads what was rebuilt while it is written to its place: it need not fit into memory."""
    table = _lance("lancedb").connect(folder).open_table(_REBUILT)
    return table.search().select(list(columns)).to_batches(_AT_ONCE)


@contextlib.asynccontextmanager
async def _opened(folder: Path, made: Made) -> AsyncIterator[tuple[lancedb.AsyncConnection, lancedb.AsyncTable]]:
    await run_in_thread_pool(_prepare, folder)
    try:
        connection = await _connect(folder)
        table = await _table(connection, made)
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(f"the search index in {folder} cannot be opened: {error}") from error
    with contextlib.closing(connection), contextlib.closing(table):
        yield connection, table


def _prepare(folder: Path) -> None:
    """Makes the folder, and loads LanceDB: a second that the loop has better use for."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"WORKER_INDEX_DIR={folder}: cannot be made: {error.strerror}; name a folder of your own"
        ) from error
    for module in ("lancedb", "lancedb.index", "lancedb.query", "lancedb.expr"):
        _lance(module)


def _lance(module: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra("recall", "the search index") from error


async def _connect(folder: Path) -> lancedb.AsyncConnection:
    # Each question looks for the newest version: what was captured is found at once.
    connection: lancedb.AsyncConnection = await _lance("lancedb").connect_async(
        folder, read_consistency_interval=timedelta(0)
    )
    return connection


async def _table(connection: lancedb.AsyncConnection, made: Made) -> lancedb.AsyncTable:
    mode: Literal["create", "overwrite"] = "create"
    try:
        table = await connection.open_table(_TABLE)
        if Made.read(await table.schema()) == made or await table.count_rows():
            return table
        mode = "overwrite"  # nothing is in it: nobody's vectors are lost
    except (ValueError, FileNotFoundError):
        pass
    try:
        return await connection.create_table(_TABLE, schema=_schema(made), mode=mode)
    except (ValueError, RuntimeError):
        # Another process was faster.
        return await connection.open_table(_TABLE)


async def _ensure_words_index(table: lancedb.AsyncTable) -> None:
    if await _has_words_index(table):
        return
    # Our own words are the tokens: nothing is left to be done to them.
    plain = {"stem": False, "lower_case": False, "remove_stop_words": False, "ascii_folding": False}
    config = _lance("lancedb.index").FTS(base_tokenizer="whitespace", max_token_length=None, **plain)
    try:
        await table.create_index("words", config=config, replace=False, name=_WORDS_INDEX)
    except (ValueError, RuntimeError):
        if not await _has_words_index(table):
            raise


async def _has_words_index(table: lancedb.AsyncTable) -> bool:
    return any(index.name == _WORDS_INDEX for index in await table.list_indices())


def _schema(made: Made) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("repository", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("start_line", pa.int32()),
            pa.field("end_line", pa.int32()),
            pa.field("language", pa.string()),
            pa.field("symbol", pa.string()),
            pa.field("text", pa.string()),
            pa.field("words", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), made.dimensions)),
            pa.field("file_hash", pa.string()),
            pa.field("file_size", pa.int64()),
            # Of rows that stand for a file as a whole.
            pa.field("file_changed_ns", pa.int64()),
            pa.field("chunks", pa.int32()),
            pa.field("left_out", pa.string()),
            pa.field("created", pa.timestamp("us", "UTC")),
        ],
        metadata={"embedder": made.embedder, "dimensions": str(made.dimensions), "layout": made.layout},
    )


def _rows_of_files(schema: pa.Schema, repository: str, files: Sequence[FileChunks]) -> pa.Table:
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    vectors: list[Vectors | None] = []
    for file in files:
        _refuse_other_vectors(schema, file.path, file.chunks, file.vectors)
        of_file = {
            "repository": repository,
            "path": file.path,
            "language": file.language,
            "file_hash": file.hash,
            "file_size": file.size,
            "created": now,
        }
        whole = {"id": _id(_FILE, repository, file.path, 0), "kind": _FILE}
        state = {"file_changed_ns": file.changed_ns, "chunks": len(file.chunks), "left_out": file.left_out}
        rows.append(of_file | whole | state)
        vectors.append(None)
        rows += (of_file | row for row in _rows_of_chunks("code", repository, file.path, file.chunks))
        vectors.extend(file.vectors)
    return _as_table(schema, rows, vectors)


def _rows_of_documents(schema: pa.Schema, documents: Sequence[Document]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    vectors: list[Vectors | None] = []
    for document in documents:
        _refuse_other_vectors(schema, document.name, document.chunks, document.vectors)
        of_document = {"repository": "", "path": document.name, "created": document.created}
        rows += (of_document | row for row in _rows_of_chunks(document.kind, "", document.name, document.chunks))
        vectors.extend(document.vectors)
    return _as_table(schema, rows, vectors)


def _refuse_other_vectors(schema: pa.Schema, name: str, chunks: Sequence[NewChunk], vectors: Vectors) -> None:
    dimensions = schema.field("vector").type.list_size
    if len(vectors) != len(chunks) or (len(chunks) and vectors.shape != (len(chunks), dimensions)):
        raise ValueError(f"{name} has {len(chunks)} chunks and vectors of shape {vectors.shape}")


def _rows_of_chunks(kind: Kind, repository: str, path: str, chunks: Sequence[NewChunk]) -> Iterator[dict[str, Any]]:
    for number, chunk in enumerate(chunks):
        yield {
            "id": _id(kind, repository, path, number),
            "kind": kind,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "symbol": _storable(chunk.symbol),
            "text": _storable(chunk.text),
            "words": _words(kind, path, chunk.symbol, chunk.text),
        }


def _words(kind: str, path: str, symbol: str | None, text: str) -> str:
    return " ".join(words_of(_searched(kind, path, symbol, text)))


def _searched(kind: str, path: str, symbol: str | None, text: str) -> str:
    return searched(path if kind == "code" else "", symbol, text)


def _storable(text: str | None) -> str | None:
    """Halves of characters, which Python makes of bytes that are no UTF-8, cannot be written."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def _as_table(schema: pa.Schema, rows: Sequence[Mapping[str, Any]], vectors: Sequence[Vectors | None]) -> pa.Table:
    columns = {name: [row.get(name) for row in rows] for name in schema.names if name != "vector"}
    vector = schema.field("vector").type
    zeros = np.zeros(vector.list_size, np.float32)
    flat = np.concatenate([zeros, *(zeros if one is None else one for one in vectors)])[vector.list_size :]
    missing = pa.array([one is None for one in vectors], pa.bool_())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(
        pa.array(flat.astype(np.float32, copy=False)), vector.list_size, mask=missing
    )
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _id(kind: str, repository: str, path: str, number: int) -> str:
    name = "\0".join([kind, repository, path, str(number)])
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _states(found: pa.Table) -> dict[str, FileState]:
    columns = [found.column(name).to_pylist() for name in found.schema.names]
    return {path: FileState(*state) for path, *state in zip(*columns, strict=True)}


def _count(found: pa.Table) -> Totals:
    of_files = found.filter(pa.compute.equal(found["kind"], _FILE))
    reasons = Counter(of_files["left_out"].to_pylist())
    files = reasons.pop(None, 0)
    sizes = of_files.filter(pa.compute.is_null(of_files["left_out"]))["file_size"]
    chunks = found.num_rows - of_files.num_rows
    return Totals(files=files, chunks=chunks, bytes=pa.compute.sum(sizes).as_py() or 0, left_out=dict(reasons))


def _first_words(text: str) -> list[str]:
    """Each once, in order: a word that is said twice in a question does not mean more."""
    words: dict[str, None] = {}
    for word in words_of(text):
        words[word] = None
        if len(words) == MOST_WORDS:
            break
    return list(words)


def _is(column: str, value: str) -> Expr:
    expr = _lance("lancedb.expr")
    found: Expr = expr.col(column) == expr.lit(value)
    return found


def _among(column: str, values: Iterable[str]) -> Expr:
    found: Expr = _lance("lancedb.expr").col(column).isin(list(values))
    return found


def _all(*conditions: Expr) -> Expr:
    return reduce(and_, conditions)


def _wanted(repository: str | None, kinds: Collection[Kind]) -> Expr:
    kind = _among("kind", kinds or ("code", "transcript", "summary", "note"))
    return kind if repository is None else _all(kind, _is("repository", repository))


def _batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


async def _found(
    query: AsyncVectorQuery | AsyncFTSQuery, column: str, limit: int, score: Callable[[float], float]
) -> list[Passage]:
    answer = await query.select([*_COLUMNS, column]).limit(limit).to_arrow()
    rows = await run_in_thread_pool(answer.to_pylist)
    return [Passage(**{name: row[name] for name in _COLUMNS}, score=score(row[column])) for row in rows]
