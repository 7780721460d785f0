"""What the search index holds: the chunks of files, transcripts, summaries and notes, and what is known of each file.

Plain values: nothing here touches the disk.
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


class Ranked(NamedTuple):
    """The id of a chunk that was found, and its score: higher is better, and only of the same search comparable."""

    id: str
    score: float


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
