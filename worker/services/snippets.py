"""Reads from files what a search has found in them, and tells whether they have changed since.

It must never leave the repository's folder, follow a link out of it, wait for a pipe, or read without a limit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.services.git_files import read_small
from worker.stores.chunks import Passage, hash_of

LONGEST = 4000
"""Characters of a snippet."""

_LONGEST_FILE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Snippet:
    """What a search found, as it reads now.

    Attributes:
        changed: Whether the file is another than the one that was indexed; `None` of what is in no file, or if it
            cannot be told.
    """

    text: str
    start_line: int
    end_line: int
    changed: bool | None


def stored(passage: Passage, *, changed: bool | None = None) -> Snippet:
    """The text as it was indexed."""
    return Snippet(passage.text[:LONGEST], passage.start_line, passage.end_line, changed)


def read_each(folders: Mapping[str, Path], passages: Iterable[Passage], found: dict[str, Snippet | OSError]) -> None:
    """Reads the passages one after another, and puts each into `found` as soon as it is read, or why it cannot be.

    It blocks: call it in a thread pool.
    """
    for passage in passages:
        try:
            found[passage.id] = read(folders[passage.repository], passage)
        except OSError as error:
            found[passage.id] = error


def read(folder: Path, passage: Passage) -> Snippet:
    """The lines of the passage, as they are in the file; the text as it was indexed where the file has others now.

    It blocks: call it in a thread pool.
    """
    file = _file(folder, passage.path)
    if file is not None and _is_too_large(file, passage):
        return stored(passage)
    content = None if file is None else read_small(file, _LONGEST_FILE)
    if content is None:
        return stored(passage, changed=True)
    text = content.decode("utf-8", "replace")
    if hash_of(content) == passage.file_hash:
        lines = "\n".join(text.split("\n")[passage.start_line - 1 : passage.end_line])
        if len(lines) > LONGEST:  # it is a part of a long line
            return stored(passage, changed=False)
        return Snippet(lines, passage.start_line, passage.end_line, changed=False)
    place = text.find(passage.text)
    if place < 0:
        return stored(passage, changed=True)
    first = text.count("\n", 0, place) + 1
    return Snippet(passage.text[:LONGEST], first, first + passage.end_line - passage.start_line, changed=True)


def _is_too_large(file: bytes, passage: Passage) -> bool:
    """Whether it may be what was indexed, and is more than is read to answer a question."""
    with contextlib.suppress(OSError, ValueError):
        return os.stat(file).st_size == passage.file_size and (passage.file_size or 0) > _LONGEST_FILE  # noqa: PTH116 - bytes
    return False


def _file(folder: Path, path: str) -> bytes | None:
    """Where the file is; `None` if that is not in the folder."""
    top = os.path.realpath(os.fsencode(folder))
    file = os.path.realpath(os.path.join(top, os.fsencode(path)))  # noqa: PTH118 - names need not be text
    if not file.startswith(top.rstrip(b"/") + b"/"):
        return None
    return file
