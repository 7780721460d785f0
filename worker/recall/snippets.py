"""Reads the found passages from their files, and shows whether the files have changed since.

It must never leave the repository's folder, follow a link out of it, wait for a pipe, or read without a limit.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from worker.loops.thread_pool import cancel_requested
from worker.stores.chunks import Passage, hash_of

LONGEST = 4000
"""Characters of a snippet."""

_LONGEST_FILE = 16 * 2**20

_IS_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
"""The errors that mean that the file is gone, or that a link or a socket has its name."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """The present text of a found passage.

    Attributes:
        changed: Whether the file has changed since it was indexed, or None (not a file, or not known).
    """

    text: str
    start_line: int
    end_line: int
    changed: bool | None


def stored(passage: Passage, *, changed: bool | None = None) -> Snippet:
    """The passage's text as it was indexed."""
    return Snippet(passage.text[:LONGEST], passage.start_line, passage.end_line, changed)


def read_each(folders: Mapping[str, Path], passages: Iterable[Passage], found: dict[str, Snippet | OSError]) -> None:
    """Reads the passages one after another, and puts each into `found` at once, or the error of reading it.

    It blocks: call it in a thread pool.
    """
    for passage in passages:
        if cancel_requested():
            return
        try:
            found[passage.id] = read(folders[passage.repository], passage)
        except OSError as error:
            found[passage.id] = error


def read(folder: Path, passage: Passage) -> Snippet:
    """The passage's lines as the file has them now; the text as indexed if the file no longer has it.

    It blocks: call it in a thread pool.

    Raises:
        OSError: The file cannot be read, or the folder does not exist: a change cannot be known.
    """
    file = _opened(folder, passage.path)
    if file is None:
        return stored(passage, changed=True)
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > _LONGEST_FILE:  # too large to read for an answer; with the same size it may be unchanged
            return stored(passage, changed=None if size == passage.file_size else True)
        content = file.read(_LONGEST_FILE)
    text = content.decode("utf-8", "replace")
    if hash_of(content) == passage.file_hash:
        lines = "\n".join(text.split("\n")[passage.start_line - 1 : passage.end_line])
        if len(lines) > LONGEST:  # the passage is a part of a long line
            return stored(passage, changed=False)
        return Snippet(lines, passage.start_line, passage.end_line, changed=False)
    place = text.find(passage.text)
    if place < 0:
        return stored(passage, changed=True)
    first = text.count("\n", 0, place) + 1
    return Snippet(passage.text[:LONGEST], first, first + passage.end_line - passage.start_line, changed=True)


def _opened(folder: Path, path: str) -> BinaryIO | None:
    """The file, or None if the folder has no such file any more.

    Raises:
        OSError: The file cannot be opened, or the folder does not exist.
    """
    top = os.path.realpath(folder)
    file = os.path.realpath(Path(top) / path)
    if not file.startswith(f"{top.rstrip('/')}/"):
        return None
    try:
        # Do not wait for a pipe that has this name.
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _IS_GONE:
            raise
        os.stat(f"{top}/.")  # noqa: PTH116 - `Path` drops the dot, which fails if this is not a folder
        return None
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return os.fdopen(opened, "rb")
    os.close(opened)
    return None
