"""Finds the files of a folder that git would see, without git, and never leaves the folder.

A folder's `.gitignore` counts for the files below it, the nearest first; then the repository's `info/exclude`. A
tracked file is seen despite all rules. A repository within another, a submodule or not, is scanned by its own rules.
Rules above the folder count too, unless they ignore the folder itself: the user named it, and so wants it. A user's own
`core.excludesFile` does not count: the same tree has the same files for every user.
It opens only files of rules, and follows no symbolic link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import ConfigurationError
from worker.recall.git_files import LONGEST_RULES, excluded, git_folder, read_small, tracked
from worker.recall.ignore_rules import IgnoreRules

_DEEPEST = 1_000
"""The deepest level of folders within folders; no system call takes longer paths."""

_NO_RULES = IgnoreRules(())


@dataclass(frozen=True, slots=True)
class Stamp:
    """The size and the time that show, without reading a file, that it has not changed."""

    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        """The stamp of a file with this status."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that git would see.

    Attributes:
        path: The path relative to the scanned folder, with `/`.
        stamp: The file's stamp at the time of the scan.
        left_out: The reason why it cannot be indexed; empty if it can.
        failed: The reason why the file or folder could not be read; empty if it could.
    """

    path: str
    stamp: Stamp = Stamp(0, 0, 0)
    left_out: str = ""
    failed: str = ""


class Globs:
    """The files that a user wants: the matches of `include` (all files if it is empty), without those of `exclude`.

    Patterns are written as in a `.gitignore`: `*.py` anywhere, `/docs` at the top, `src/**/test_*`.

    Raises:
        ConfigurationError: A pattern is empty, leads out of the tree or is written as an exception.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self._include, self._exclude = _read_globs(include, "--include"), _read_globs(exclude, "--exclude")

    def want(self, path: bytes) -> bool:
        """Whether the file is wanted, by its own name or by the name of one of its folders."""
        if self._include and not _matches(self._include, path):
            return False
        return not (self._exclude and _matches(self._exclude, path))


def _read_globs(patterns: Iterable[str], option: str) -> IgnoreRules:
    lines = []
    for pattern in patterns:
        if not pattern.strip() or "\n" in pattern:
            raise ConfigurationError(f"{option} {pattern!r}: write a pattern such as '*.py' or 'src/'")
        if ".." in pattern.split("/"):
            raise ConfigurationError(f"{option} {pattern!r}: a pattern cannot lead out of the repository with '..'")
        if pattern.startswith("!"):
            raise ConfigurationError(f"{option} {pattern!r}: a pattern cannot begin with '!'; write '\\!' for a name")
        lines.append(b"\\" * pattern.startswith("#") + os.fsencode(pattern))
    return IgnoreRules(lines)


def _matches(rules: IgnoreRules, path: bytes) -> bool:
    if rules.ignores(path, folder=False):
        return True
    end = path.find(b"/")
    while end >= 0:
        if rules.ignores(path[:end], folder=True):
            return True
        end = path.find(b"/", end + 1)
    return False


@dataclass(frozen=True, slots=True)
class _Level:
    """The rules of a folder, and its path relative to the repository's top, with a slash at its end."""

    base: bytes
    rules: IgnoreRules


@dataclass(frozen=True, slots=True)
class _Repository:
    """A work tree: its path, its own rules, and the files that git tracks in it."""

    top: bytes
    excluded: IgnoreRules = _NO_RULES
    tracked: frozenset[bytes] = frozenset()
    tracked_folders: frozenset[bytes] = frozenset()

    @classmethod
    def at(cls, top: bytes) -> _Repository | None:
        git = git_folder(top)
        if git is None:
            return None
        paths = frozenset(tracked(git))
        return cls(top, IgnoreRules.parse(excluded(git)), paths, frozenset(_folders_of(paths)))


def _folders_of(paths: Iterable[bytes]) -> set[bytes]:
    folders: set[bytes] = set()
    for path in paths:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]
    return folders


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is still to be scanned.

    Attributes:
        path: The path relative to the scanned folder, with a slash at its end, or empty.
        place: The path relative to the repository's top, likewise.
        only_tracked: True for an ignored folder: only its tracked files are seen.
    """

    path: bytes
    repository: _Repository
    place: bytes
    levels: tuple[_Level, ...] = ()
    only_tracked: bool = False

    def ignores(self, path: bytes, *, folder: bool) -> bool:
        """Whether the rules ignore a path, which is relative to the repository's top."""
        for level in reversed(self.levels):
            verdict = level.rules.ignores(path[len(level.base) :], folder=folder)
            if verdict is not None:
                return verdict
        return bool(self.repository.excluded.ignores(path, folder=folder))


@dataclass(slots=True)
class Scan:
    """A walk over a folder's files, in any order. Each step blocks for some milliseconds.

    Args:
        root: The folder.
        globs: The patterns of the wanted files.
        largest: The size in bytes of the largest file to index.

    Attributes:
        scanned: The number of files so far that git would see, wanted or not.
    """

    root: Path
    globs: Globs = field(default_factory=Globs)
    largest: int = 1024 * 1024
    scanned: int = 0

    def files(self) -> Iterator[Found]:
        """The wanted files, also those that cannot be indexed or read.

        Raises:
            OSError: The folder itself cannot be listed.
        """
        top = os.fsencode(os.path.realpath(self.root))
        todo = [_first(top)]
        while todo:
            folder = todo.pop()
            try:
                entries = _entries(os.path.join(top, folder.path))
            except OSError as error:
                if not folder.path:
                    raise
                if isinstance(error, FileNotFoundError | NotADirectoryError):
                    continue  # removed since the folder above it was listed
                yield Found(_shown(folder.path), failed=error.strerror or str(error))
                continue
            for entry in entries:
                if entry.name == b".git":
                    continue  # a folder, or a file that names one
                if not entry.is_dir(follow_symlinks=False):
                    yield from self._file(folder, entry)
                elif (beneath := _beneath(folder, entry)) is not None:
                    todo.append(beneath)

    def _file(self, folder: _Folder, entry: os.DirEntry[bytes]) -> Iterator[Found]:
        place = folder.place + entry.name
        ignored = folder.only_tracked or folder.ignores(place, folder=False)
        if ignored and place not in folder.repository.tracked:
            return
        self.scanned += 1
        path = folder.path + entry.name
        if not self.globs.want(path):
            return
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # removed since the folder was listed
        except OSError as error:
            yield Found(_shown(path), failed=error.strerror or str(error))
            return
        yield Found(_shown(path), Stamp.of(found), left_out(path, found, self.largest))


def left_out(path: bytes, found: os.stat_result, largest: int) -> str:
    """The reason why a file cannot be indexed, as far as its status and name show; empty if it can."""
    if stat.S_ISLNK(found.st_mode):
        return "symbolic link"
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if found.st_size == 0:
        return "empty"
    if found.st_size > largest:
        return "too large"
    return "" if _is_text(path) else "name is not UTF-8"


def _first(top: bytes) -> _Folder:
    """The scanned folder, with the rules above it."""
    repository, above = _Repository.at(top), top
    while repository is None and above != os.path.dirname(above):
        above = os.path.dirname(above)
        repository = _Repository.at(above)
    if repository is None or above == top:
        return _with_own_rules(_Folder(b"", repository or _Repository(top), b""), top)
    folder = _with_own_rules(_Folder(b"", repository, b""), above)
    here = b""
    for name in top[len(above) :].strip(b"/").split(b"/"):
        if folder.ignores(here + name, folder=True):
            return _with_own_rules(_Folder(b"", _Repository(top), b""), top)
        here += name + b"/"
        folder = _with_own_rules(_Folder(b"", repository, here, folder.levels), os.path.join(above, here))
    return folder


def _beneath(folder: _Folder, entry: os.DirEntry[bytes]) -> _Folder | None:
    """A folder inside this one, or None if git would not look into it."""
    path, place = folder.path + entry.name, folder.place + entry.name
    if path.count(b"/") >= _DEEPEST:
        return None
    ignored = folder.only_tracked or folder.ignores(place, folder=True)
    if ignored and place not in folder.repository.tracked_folders:
        return None
    if (nested := _Repository.at(entry.path)) is not None:
        return _with_own_rules(_Folder(path + b"/", nested, b""), entry.path)
    beneath = _Folder(path + b"/", folder.repository, place + b"/", folder.levels, ignored)
    return _with_own_rules(beneath, entry.path)


def _with_own_rules(folder: _Folder, where: bytes) -> _Folder:
    content = read_small(os.path.join(where, b".gitignore"), LONGEST_RULES)
    rules = IgnoreRules.parse(content) if content else None
    if not rules:
        return folder
    levels = (*folder.levels, _Level(folder.place, rules))
    return _Folder(folder.path, folder.repository, folder.place, levels, folder.only_tracked)


def _entries(where: bytes) -> list[os.DirEntry[bytes]]:
    with os.scandir(where) as listed:
        return list(listed)


def _shown(path: bytes) -> str:
    return path.rstrip(b"/").decode("utf-8", "backslashreplace")


def _is_text(path: bytes) -> bool:
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
