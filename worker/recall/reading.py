"""Reads the files of a repository and cuts them into chunks. A bad file affects only itself.

It blocks: call it in a thread pool. It never follows a link, waits for a pipe, or reads more than its limit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.errors import WorkerError
from worker.loops.thread_pool import cancel_requested
from worker.recall.chunking import cut
from worker.recall.languages import language_of
from worker.recall.scanning import Found, left_out
from worker.stores.chunks import FileState, NewChunk, hash_of

FAILED = "failed: "
"""The begin of a reason for a file without chunks, if the next sync should try the file again."""

CLOCK_TICK = 0.02
"""Seconds within which two changes of a file may have the same time, because the system's clock ticks."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file in its present state, and its chunks.

    Attributes:
        state: The state to store in the index.
        chunks: The chunks, or None if the index has this content already.
    """

    path: str
    language: str | None
    state: FileState
    chunks: list[NewChunk] | None


def read_files(root: Path, files: Iterable[Found], known: Mapping[str, FileState], largest: int) -> list[ReadFile]:
    """The files in their present state. Files that are gone are missing, and so is the rest after a cancel."""
    top = os.path.realpath(os.fsencode(root))
    return [one for found in files if not cancel_requested() for one in _read(top, found, known, largest)]


def failed(found: Found | str, reason: str) -> ReadFile:
    """A file without chunks that the next sync tries again."""
    path = found if isinstance(found, str) else found.path
    return ReadFile(path, None, FileState("", 0, 0, 0, FAILED + reason), [])


def _read(top: bytes, found: Found, known: Mapping[str, FileState], largest: int) -> Iterator[ReadFile]:
    if found.failed:
        yield failed(found, found.failed)
        return
    if found.left_out:
        state = FileState("", found.stamp.size, found.stamp.changed_ns, 0, found.left_out)
        yield ReadFile(found.path, None, state, [])
        return
    try:
        yield _content(top, found.path, known.get(found.path), largest)
    except (FileNotFoundError, NotADirectoryError):
        return  # removed since the folder was listed
    except OSError as error:
        yield failed(found, error.strerror or str(error))
    except WorkerError:
        raise
    except Exception as error:  # noqa: BLE001 - an edge: a file that breaks a parser must not stop the others
        yield failed(found, f"{type(error).__name__}: {error}")


def _content(top: bytes, path: str, known: FileState | None, largest: int) -> ReadFile:
    where = os.path.join(top, os.fsencode(path))
    folder = os.path.dirname(where)
    if os.path.realpath(folder) != folder:
        raise OSError("a folder on the way has become a link")
    begun = time.time_ns() - round(CLOCK_TICK * 1e9)
    file = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as opened:
        before = os.fstat(file)
        if reason := left_out(os.fsencode(path), before, largest):
            return ReadFile(path, None, FileState("", before.st_size, before.st_ctime_ns, 0, reason), [])
        content = opened.read(largest)
        after = os.fstat(file)
    # A file that changes while it is read, or just before, is read again next time, because its time is not certain.
    is_settled = after.st_ctime_ns == before.st_ctime_ns < begun and len(content) == after.st_size
    changed_ns = after.st_ctime_ns if is_settled else 0
    return _cut(path, content, changed_ns, known)


def _cut(path: str, content: bytes, changed_ns: int, known: FileState | None) -> ReadFile:
    digest, language = hash_of(content), language_of(path)
    if known is not None and known.hash == digest:
        state = FileState(digest, len(content), changed_ns, known.chunks, known.left_out)
        return ReadFile(path, language, state, None)
    text, reason = _text(content)
    chunks = [
        NewChunk(text=text[one.start : one.end], start_line=one.start_line, end_line=one.end_line, symbol=one.symbol)
        for one in cut(text, language)
        if not text[one.start : one.end].isspace()
    ]
    state = FileState(digest, len(content), changed_ns, len(chunks), reason or (None if chunks else "empty"))
    return ReadFile(path, language, state, chunks)


def _text(content: bytes) -> tuple[str, str | None]:
    """The file's text, or an empty text and the reason."""
    if b"\0" in content:
        return "", "binary"
    try:
        return content.decode("utf-8"), None
    except UnicodeDecodeError:
        return "", "not UTF-8"
