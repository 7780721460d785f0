"""Reads a repository's `.git` without git: its place, its own ignore rules, and the list of tracked files.

It only reads. Unreadable files count as empty, so that the tree can still be scanned.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_RULES = 1024 * 1024
_LONGEST_INDEX = 512 * 1024 * 1024
_LONGEST_POINTER = 64 * 1024

_MODE_AT = 24
_EXTENDED = 0x4000
_SUBMODULE = 0o160000

_SHA256 = re.compile(rb'^\s*objectformat\s*=\s*"?sha256\b', re.IGNORECASE | re.MULTILINE)

_LONGEST_PATH = 4096
"""The most bytes of a path: no system call takes longer ones (`PATH_MAX`), and only a hostile index has them."""


@dataclass(frozen=True, slots=True)
class GitFolder:
    """A repository's `.git`: the work tree's own folder, and the folder that it shares with other work trees."""

    own: bytes
    shared: bytes


def git_folder(top: bytes) -> GitFolder | None:
    """The `.git` of this work tree, or None if the folder is not a work tree."""
    own = os.path.join(top, b".git")
    if os.path.isfile(own):  # a submodule, or one of several work trees
        said = read_small(own, _LONGEST_POINTER) or b""
        if not said.startswith(b"gitdir:"):
            return None
        own = os.path.join(top, said.removeprefix(b"gitdir:").strip())
    if not os.path.isfile(os.path.join(own, b"HEAD")):
        return None
    shared = (read_small(os.path.join(own, b"commondir"), _LONGEST_POINTER) or b"").strip()
    return GitFolder(own, os.path.join(own, shared) if shared else own)


def excluded(git: GitFolder) -> bytes:
    """The repository's own ignore rules, from `info/exclude`."""
    return read_small(os.path.join(git.shared, b"info", b"exclude"), LONGEST_RULES) or b""


def tracked(git: GitFolder) -> Iterator[bytes]:
    """The paths of the files that git tracks; ignore rules do not count."""
    content = read_small(os.path.join(git.own, b"index"), _LONGEST_INDEX)
    config = read_small(os.path.join(git.shared, b"config"), LONGEST_RULES) or b""
    id_bytes = 32 if _SHA256.search(config) else 20
    # Git may be writing the file, or it has an unknown format.
    with contextlib.suppress(struct.error, IndexError, ValueError):
        if content is not None and content.startswith(b"DIRC"):
            yield from _entries(content, id_bytes)


def _entries(content: bytes, id_bytes: int) -> Iterator[bytes]:
    version, count = struct.unpack_from(">II", content, 4)
    at, path = 12, b""
    for _ in range(count):
        begin = at
        (mode,) = struct.unpack_from(">I", content, begin + _MODE_AT)
        at += 40 + id_bytes
        (flags,) = struct.unpack_from(">H", content, at)
        at += 4 if version > 2 and flags & _EXTENDED else 2  # noqa: PLR2004 - version 3 brought the extension
        if version == 4:  # noqa: PLR2004 - each path begins with a part of the one before it
            dropped, at = _number(content, at)
            end = content.index(b"\0", at)
            path = path[: len(path) - dropped] + content[at:end]
            at = end + 1
        else:
            end = content.index(b"\0", at)
            path = content[at:end]
            at = begin + (end - begin + 8) // 8 * 8
        if len(path) > _LONGEST_PATH:
            return
        if stat.S_IFMT(mode) != _SUBMODULE:
            yield path


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, as git packs offsets, and the position after it."""
    byte = content[at]
    value = byte & 0x7F
    while byte & 0x80:
        at += 1
        byte = content[at]
        value = (value + 1 << 7) | byte & 0x7F
    return value, at + 1


def read_small(path: bytes, longest: int) -> bytes | None:
    """A regular file's content, or None if it cannot be read, is a link, or is longer than `longest` bytes."""
    try:
        # Do not wait for a pipe that has this name.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_size > longest:
        os.close(file)
        return None
    with os.fdopen(file, "rb") as opened:
        try:
            return opened.read(found.st_size)
        except OSError:
            return None
