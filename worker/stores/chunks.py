"""The content of the search index: chunks of files, transcripts, summaries and notes, and the state of each file.

These are plain values: no function here touches the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from worker.models.embedder import Vectors

Kind = Literal["code", "transcript", "summary", "note"]
DocumentKind = Literal["transcript", "summary", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A piece of a text, found as a whole: the lines from `start_line` to `end_line` (the first line is 1)."""

    text: str
    start_line: int
    end_line: int
    symbol: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChunks:
    """A file that was read, its chunks, and a vector for each chunk. A file without chunks is stored too.

    Attributes:
        path: The path within its repository, with `/`.
        hash: The `hash_of` its content.
        changed_ns: The time of its last change in nanoseconds, as the system reports it.
        left_out: The reason why the unchanged file never has chunks, or None.
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
    """A text outside of files: a conversation's transcript or summary, or a note.

    Attributes:
        name: The id of the conversation or note. It replaces the stored document of the same kind and name.
    """

    kind: DocumentKind
    name: str
    created: datetime
    chunks: Sequence[NewChunk]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class FileState:
    """The stored state of a file: its size, time and hash when it was read, and its number of chunks."""

    hash: str
    size: int
    changed_ns: int
    chunks: int
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers of files, chunks and bytes that are stored of a repository.

    Attributes:
        left_out: The numbers of other files, without chunks, by the reason.
    """

    files: int
    chunks: int
    bytes: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that a search found.

    Attributes:
        repository: The repository's name; empty for documents.
        path: The file's path, or the document's name.
        file_hash: The hash of the file when it was indexed; None for documents.
        score: Higher is better; comparable only within one search.
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


class Ranked(NamedTuple):
    """The id and the score of a chunk that a search found. Higher is better; comparable only within one search."""

    id: str
    score: float


def searched(path: str, symbol: str | None, text: str) -> str:
    """The text by which a chunk is found, by vector and by word: a title line, then the chunk's text.

    The title holds the path and the symbol: a question that names a thing should find its definition.

    Args:
        path: The file's path; empty for a document.
        symbol: The chunk's symbol, or None.
        text: The chunk's text.
    """
    return f"{path} {symbol or ''}\n{text}"


def hash_of(content: bytes) -> str:
    """The hash that identifies a file's content."""
    return hashlib.sha256(content).hexdigest()
