"""Adds, names, describes and removes the synced repositories.

A removal first empties the index and then removes the repository, so that an interrupted removal can be repeated.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from worker.errors import ConfigurationError, Fatal
from worker.ground.texts import shown
from worker.loops.thread_pool import run_in_thread_pool
from worker.recall.reading import FAILED
from worker.recall.scanning import Globs
from worker.recall.settings import RecallSettings
from worker.stores.chunks import Totals
from worker.stores.database import is_storable
from worker.stores.index import search_index
from worker.stores.repositories import Repository, Sync, repository_store

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class NoSuchRepository(ConfigurationError):
    """No repository has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no repository is called {name!r}: see `worker repositories list`")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryAnswer:
    """A repository, its files and chunks in the index, and its last sync, as the command line and HTTP tell it.

    `left_out` counts the files that were left out, by the reason, and `errors` those that could not be read or cut.
    `sync` is null if it was never synced.
    """

    name: str
    path: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    added_at: datetime
    files: int
    chunks: int
    bytes: int
    left_out: Mapping[str, int]
    errors: int
    sync: Sync | None


@dataclass(frozen=True, slots=True)
class RepositoryAnswers:
    """Repositories, in the order of their adding."""

    repositories: tuple[RepositoryAnswer, ...]


async def add_repository(
    path: Path, name: str | None = None, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Repository:
    """Adds a folder as a repository to sync; for a known name, it changes the globs.

    Args:
        path: The folder.
        name: The repository's name, or None for the folder's name.
        include: Globs of the wanted files, written as in a `.gitignore`; empty for all files.
        exclude: Globs of the unwanted files among them.

    Raises:
        ConfigurationError: The folder does not exist, the name is taken or not valid, or a glob is not valid.
    """
    Globs(include, exclude)
    folder = await run_in_thread_pool(_folder, path)
    called = folder.name if name is None else name
    if not _NAME.fullmatch(called):
        raise ConfigurationError(
            f"{called!r} is not a valid name for a repository: choose one with --name, of at most 100 letters, digits, "
            "'_', '-' and '.'"
        )
    store = await repository_store()
    return await store.add(Repository(name=called, path=folder, include=tuple(include), exclude=tuple(exclude)))


def _folder(path: Path) -> Path:
    try:
        check_folder(path)
    except Fatal as error:
        raise ConfigurationError(f"{error}: name a folder") from error
    folder = Path(os.path.realpath(path))
    if not is_storable(str(folder)):
        raise ConfigurationError(f"{path!r} is not UTF-8: rename the folder")
    return folder


async def name_of(path_or_name: str) -> str:
    """The name of a repository. A new folder is added under its own name, if it is below `WORKER_REPOSITORY_ROOTS`.

    Returns:
        The repository's name; or `path_or_name` itself if it is neither a repository nor such a folder, so that
        `sync_repository` reports the error.
    """
    if not is_storable(path_or_name):
        return path_or_name
    store = await repository_store()
    path = Path(path_or_name)
    if await store.get(path_or_name) is not None or not path.is_absolute():
        return path_or_name
    folder = Path(await run_in_thread_pool(os.path.realpath, path))
    if (known := await store.at(folder)) is not None:
        return known.name
    if not await run_in_thread_pool(is_below_a_root, folder):
        return path_or_name
    is_free = _NAME.fullmatch(folder.name) and await store.get(folder.name) is None
    try:
        return (await add_repository(folder, folder.name if is_free else _name_of(folder))).name
    except ConfigurationError:
        return path_or_name


def is_below_a_root(path: Path) -> bool:
    """Whether a folder is below one of `WORKER_REPOSITORY_ROOTS`, or one of them; all links are followed first."""
    real = Path(os.path.realpath(path))
    # A root may have become a link since the settings were read.
    roots = [Path(os.path.realpath(root)) for root in RecallSettings.in_force().repository_roots]
    return any(real.is_relative_to(root) for root in roots)


def _name_of(path: Path) -> str:
    """The folder's name, changed if another folder has it."""
    fit = re.sub(r"[^A-Za-z0-9_]+", "-", path.name).strip("-")[:80] or "repository"
    return f"{fit}-{sha256(os.fsencode(path)).hexdigest()[:8]}"


async def known_repositories(names: Sequence[str] = ()) -> list[Repository]:
    """The repositories of these names; without any, all.

    Raises:
        NoSuchRepository: One of the names is unknown.
    """
    if not names:
        return await (await repository_store()).all()
    return [await known_repository(name) for name in names]


async def known_repository(name: str) -> Repository:
    """The repository of this name.

    Raises:
        NoSuchRepository: No repository has it.
    """
    found = await (await repository_store()).get(name)
    if found is None:
        raise NoSuchRepository(name)
    return found


async def describe_repositories(names: Sequence[str] = ()) -> RepositoryAnswers:
    """Describes the repositories of these names; without any, all.

    Raises:
        NoSuchRepository: One of the names is unknown.
        WorkerError, SQLAlchemyError, OSError, RuntimeError: The database or the index cannot be opened or read.
    """
    return RepositoryAnswers(tuple([await describe_repository(one) for one in await known_repositories(names)]))


def lease_name(name: str) -> str:
    """The name of the lease for changes of a repository's chunks."""
    return f"repository:{name}"


async def remove_repository(name: str) -> None:
    """Removes a repository and its chunks in the index; its files stay.

    Raises:
        NoSuchRepository: There is no repository of this name.
    """
    await known_repository(name)
    # In this order, an interrupted removal can be repeated.
    await (await search_index()).remove_repository(name)
    await (await repository_store()).remove(name)


async def describe_repository(repository: Repository) -> RepositoryAnswer:
    """Counts a repository's stored files and chunks.

    Raises:
        WorkerError, SQLAlchemyError, OSError, RuntimeError: The index cannot be opened or read.
    """
    totals = await (await search_index()).totals(repository.name)
    return RepositoryAnswer(
        name=repository.name,
        path=str(repository.path),
        include=repository.include,
        exclude=repository.exclude,
        added_at=repository.added_at,
        files=totals.files,
        chunks=totals.chunks,
        bytes=totals.bytes,
        left_out=left_out_of(totals),
        errors=failures_in(totals),
        sync=repository.sync,
    )


def left_out_of(totals: Totals) -> dict[str, int]:
    """The numbers of files that were left out, by the reason, the largest first; failed files are not counted."""
    reasons = {reason: count for reason, count in totals.left_out.items() if not reason.startswith(FAILED)}
    return dict(sorted(reasons.items(), key=lambda one: (-one[1], one[0])))


def failures_in(totals: Totals) -> int:
    """The number of files that failed."""
    return sum(count for reason, count in totals.left_out.items() if reason.startswith(FAILED))


def check_folder(path: Path) -> None:
    """Checks that a path is a folder.

    Raises:
        Fatal: The path does not exist, is not a folder, or may not be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise Fatal(f"{path} is not there") from error
    except PermissionError as error:
        raise Fatal(f"{path} may not be read: {error.strerror}") from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        raise Fatal(f"{shown(str(path))} is not a valid path: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise Fatal(f"{path} is not a folder")


def check_place(path: Path) -> None:
    """Checks that the folder of a repository is still the one that was added, and no link to another.

    Raises:
        Fatal: The path does not exist, is not a folder, may not be read, or leads elsewhere now.
    """
    check_folder(path)
    if (real := os.path.realpath(path)) != str(path):
        raise Fatal(f"{path} leads to {real} now: remove the repository, and add it again if that is wanted")
