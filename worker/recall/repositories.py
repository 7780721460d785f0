"""The repositories that are synced: folders, what they are called, and what is stored of each.

What is removed is gone from the index before it is forgotten: an interrupted removal can be done again.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from worker.errors import ConfigurationError, Fatal
from worker.ground.texts import shown
from worker.loops.thread_pool import run_in_thread_pool
from worker.recall.reading import FAILED
from worker.recall.scanning import Globs
from worker.stores.chunks import Totals
from worker.stores.database import is_storable
from worker.stores.index import search_index
from worker.stores.repositories import Repository, repository_store

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


async def add_repository(
    path: Path, name: str | None = None, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Repository:
    """Has a folder synced from now on; once more with the same name, it changes which of its files are.

    Args:
        path: The folder.
        name: What it is called; `None`: as the folder is.
        include: Globs of the files that are wanted, written as in a `.gitignore`; none: all.
        exclude: Globs of those that are not.

    Raises:
        ConfigurationError: There is no such folder, the name is taken or unfit, or a glob is.
    """
    Globs(include, exclude)
    folder = await run_in_thread_pool(_folder, path)
    called = folder.name if name is None else name
    if not _NAME.fullmatch(called):
        raise ConfigurationError(
            f"{called!r} is no name for a repository: choose one with --name, of at most 100 letters, digits, "
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
    """What a repository is called; a folder that is not known yet is added, and called as it is.

    Returns:
        What was given, if it is neither: `sync_repository` says what is wrong with it.
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
    is_free = _NAME.fullmatch(folder.name) and await store.get(folder.name) is None
    try:
        return (await add_repository(folder, folder.name if is_free else _name_of(folder))).name
    except ConfigurationError:
        return path_or_name


def _name_of(path: Path) -> str:
    """A name that no other folder has."""
    fit = re.sub(r"[^A-Za-z0-9_]+", "-", path.name).strip("-")[:80] or "repository"
    return f"{fit}-{sha256(os.fsencode(path)).hexdigest()[:8]}"


async def remove_repository(name: str) -> None:
    """Forgets a repository, with all that is stored of it; its files stay.

    Raises:
        ConfigurationError: There is none of that name.
    """
    store = await repository_store()
    if await store.get(name) is None:
        raise ConfigurationError(f"no repository is called {name!r}: see `worker repositories list`")
    # In this order: what is left of an interrupted removal can still be removed.
    await (await search_index()).remove_repository(name)
    await store.remove(name)


async def describe_repository(repository: Repository) -> dict[str, Any]:
    """A repository, how much is stored of it, and how its last sync goes or went; as JSON types."""
    totals = await (await search_index()).totals(repository.name)
    sync = repository.sync
    return {
        "name": repository.name,
        "path": str(repository.path),
        "include": list(repository.include),
        "exclude": list(repository.exclude),
        "added_at": repository.added_at.isoformat(),
        "files": totals.files,
        "chunks": totals.chunks,
        "bytes": totals.bytes,
        "left_out": left_out_of(totals),
        "errors": failures_in(totals),
        "sync": None
        if sync is None
        else {
            "state": sync.state.value,
            "started_at": sync.started_at.isoformat(),
            "updated_at": sync.updated_at.isoformat(),
            "scanned": sync.scanned,
            "matching": sync.matching,
            "done": sync.done,
            "text": sync.text,
        },
    }


def left_out_of(totals: Totals) -> dict[str, int]:
    """How many files were left out, by the reason, most first; without those that failed."""
    reasons = {reason: count for reason, count in totals.left_out.items() if not reason.startswith(FAILED)}
    return dict(sorted(reasons.items(), key=lambda one: (-one[1], one[0])))


def failures_in(totals: Totals) -> int:
    """How many files failed."""
    return sum(count for reason, count in totals.left_out.items() if reason.startswith(FAILED))


def check_folder(path: Path) -> None:
    """Tells whether something is a folder.

    Raises:
        Fatal: It is not there, is none, or may not be looked at.
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
        raise Fatal(f"{shown(str(path))} is no path: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise Fatal(f"{path} is no folder")
