"""The layout of the search index's table: its columns, its rows, and the embedder that made its vectors.

This module makes rows, and never writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from worker.errors import MissingExtra
from worker.models.embedder import Vectors
from worker.models.words import words_of
from worker.stores.chunks import Document, FileChunks, Kind, NewChunk, searched

try:
    import numpy as np
    import pyarrow as pa
except ImportError as error:
    raise MissingExtra("recall", "the search index") from error

FILE = "file"
"""The kind of the rows for whole files; no search finds them."""

_LAYOUT = "1"


@dataclass(frozen=True, slots=True)
class Made:
    """The embedder, its dimensions and the layout with which an index was made."""

    embedder: str
    dimensions: int
    layout: str = _LAYOUT

    @classmethod
    def read(cls, schema: pa.Schema) -> Made:
        """Reads it from a table's schema."""
        said = {name.decode(): value.decode() for name, value in (schema.metadata or {}).items()}
        return cls(said.get("embedder", ""), int(said.get("dimensions", "0")), said.get("layout", ""))

    def describe(self) -> str:
        """One line for people."""
        layout = "" if self.layout == _LAYOUT else f", layout {self.layout}"
        return f"{self.embedder} ({self.dimensions} dimensions{layout})"


def schema_of(made: Made) -> pa.Schema:
    """The table's schema: its columns, with the embedder in its metadata."""
    return pa.schema(
        [
            # A key, so that two writers that store a row at the same time store it once.
            pa.field("id", pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
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
            # Only in rows for whole files.
            pa.field("file_changed_ns", pa.int64()),
            pa.field("chunks", pa.int32()),
            pa.field("left_out", pa.string()),
            pa.field("created", pa.timestamp("us", "UTC")),
        ],
        metadata={"embedder": made.embedder, "dimensions": str(made.dimensions), "layout": made.layout},
    )


def rows_of_files(schema: pa.Schema, repository: str, files: Sequence[FileChunks]) -> pa.Table:
    """A row for each whole file, and a row for each of its chunks."""
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
        whole = {"id": id_of(FILE, repository, file.path, 0), "kind": FILE}
        state = {"file_changed_ns": file.changed_ns, "chunks": len(file.chunks), "left_out": file.left_out}
        rows.append(of_file | whole | state)
        vectors.append(None)
        rows += (of_file | row for row in _rows_of_chunks("code", repository, file.path, file.chunks))
        vectors.extend(file.vectors)
    return as_table(schema, rows, vectors)


def rows_of_documents(schema: pa.Schema, documents: Sequence[Document]) -> pa.Table:
    """A row for each chunk of the documents."""
    rows: list[dict[str, Any]] = []
    vectors: list[Vectors | None] = []
    for document in documents:
        _refuse_other_vectors(schema, document.name, document.chunks, document.vectors)
        of_document = {"repository": "", "path": document.name, "created": document.created}
        rows += (of_document | row for row in _rows_of_chunks(document.kind, "", document.name, document.chunks))
        vectors.extend(document.vectors)
    return as_table(schema, rows, vectors)


def _refuse_other_vectors(schema: pa.Schema, name: str, chunks: Sequence[NewChunk], vectors: Vectors) -> None:
    dimensions = schema.field("vector").type.list_size
    if len(vectors) != len(chunks) or (len(chunks) and vectors.shape != (len(chunks), dimensions)):
        raise ValueError(f"{name} has {len(chunks)} chunks and vectors of shape {vectors.shape}")


def _rows_of_chunks(kind: Kind, repository: str, path: str, chunks: Sequence[NewChunk]) -> Iterator[dict[str, Any]]:
    for number, chunk in enumerate(chunks):
        yield {
            "id": id_of(kind, repository, path, number),
            "kind": kind,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "symbol": _storable(chunk.symbol),
            "text": _storable(chunk.text),
            "words": words_in(kind, path, chunk.symbol, chunk.text),
        }


def words_in(kind: str, path: str, symbol: str | None, text: str) -> str:
    """The words that find a chunk, with spaces between them."""
    return " ".join(words_of(searched_of(kind, path, symbol, text)))


def searched_of(kind: str, path: str, symbol: str | None, text: str) -> str:
    """The text by which a chunk is found; without the path for a document, which is an id that no question names."""
    return searched(path if kind == "code" else "", symbol, text)


def _storable(text: str | None) -> str | None:
    """The text without lone surrogates, which Python makes from bytes that are not UTF-8; they cannot be written."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def as_table(schema: pa.Schema, rows: Sequence[Mapping[str, Any]], vectors: Sequence[Vectors | None]) -> pa.Table:
    """The rows as a table, each with its vector or with null."""
    columns = {name: [row.get(name) for row in rows] for name in schema.names if name != "vector"}
    vector = schema.field("vector").type
    zeros = np.zeros(vector.list_size, np.float32)
    flat = np.concatenate([zeros, *(zeros if one is None else one for one in vectors)])[vector.list_size :]
    missing = pa.array([one is None for one in vectors], pa.bool_())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(
        pa.array(flat.astype(np.float32, copy=False)), vector.list_size, mask=missing
    )
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def id_of(kind: str, repository: str, path: str, number: int) -> str:
    """The id of chunk number `number` of a file or document; always the same for the same arguments."""
    name = "\0".join([kind, repository, path, str(number)])
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
