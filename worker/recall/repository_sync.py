"""Syncs a repository: makes the index match the files on disk.

Batches are stored one by one, each whole, and the index itself shows the remaining work. So an interrupted sync
continues from where it stopped. Two syncs of one repository at once would undo each other's work: the caller must
prevent that. Memory holds a few batches, and the names of all files to read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np

from worker.errors import Fatal, NoContentFound, RetryLater, Unchanged
from worker.ground.groups import deciding
from worker.ground.texts import counted, shown
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedder import Embedder, Vectors, embedder, refuses_not_everything
from worker.recall.reading import CLOCK_TICK, FAILED, ReadFile, failed, read_files
from worker.recall.repositories import check_folder, check_place, is_below_a_root, left_out_of
from worker.recall.scanning import Found, Globs, Scan
from worker.recall.settings import RecallSettings
from worker.recall.sync_record import RepositoryRemoved, SyncRecord, recorded
from worker.stores.chunks import FileChunks, FileState, Totals, searched
from worker.stores.database import is_storable
from worker.stores.index import SearchIndex, search_index
from worker.stores.repositories import Repository, repository_store

MOST_NAMED = 20
"""The most failed files that the result names; the others are only counted."""

_SLICE = 500
"""Files that are scanned at a time; it takes some milliseconds, and then the sync may have been cancelled."""

_IN_FLIGHT = 3
_BATCH_BYTES = 4 * 2**20

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that could not be read or cut; the next sync tries it again."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Synced:
    """The result of a sync.

    Attributes:
        stored: The number of files that were stored.
        chunks: The number of their chunks.
        removed: The number of files that were removed from the index.
        failed: The files that could not be read or cut.
        totals: The numbers of all files and chunks of the repository in the index.
        is_scattered: True if the index has so many files that it should be optimized.
    """

    stored: int
    chunks: int
    removed: int
    failed: tuple[FailedFile, ...]
    totals: Totals
    is_scattered: bool

    def describe(self) -> str:
        """One line for the history."""
        text = f"{counted(self.stored, 'file')} stored in {counted(self.chunks, 'chunk')}, {self.removed:,} removed"
        text += f"; now {counted(self.totals.files, 'file')}, {counted(self.totals.chunks, 'chunk')}"
        if left := left_out_of(self.totals):
            text += "; left out: " + _counted(left)
        if self.failed:
            named = ", ".join(f"{one.path!r} ({one.reason})" for one in self.failed[:MOST_NAMED])
            more = len(self.failed) - MOST_NAMED
            text += f"; {len(self.failed)} failed: {named}" + (f" and {more} more" if more > 0 else "")
        return text


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


async def sync_repository(name: str, *, progress: Progress | None = None) -> Synced:
    """Makes the index match the repository's files on disk.

    Args:
        name: The name of a repository that was added.
        progress: Called after each batch with the number of finished files, the number of all, and a text.

    Raises:
        Fatal: The repository does not exist, or was removed meanwhile; its folder does not exist, is not a folder, or
            may not be read.
        Unchanged: The index matched already.
        NoContentFound: There is nothing to index.
        ConfigurationError: Another embedder made the index.
        RetryLater: The embedder asks to come back later, or other writers came first too many times.
    """
    store = await repository_store()
    repository = await store.get(name)
    if repository is None:
        raise await run_in_thread_pool(_unknown, name)
    try:
        async with recorded(store, repository) as record:
            syncing = _Syncing(repository, await search_index(), await embedder(), record, progress)
            synced = await syncing.run()
            record.sync = replace(record.sync, text=synced.describe())
    except RepositoryRemoved:
        # Chunks that were stored after the removal would belong to no repository.
        await (await search_index()).remove_repository(name)
        raise
    return synced


def _unknown(name: str) -> Fatal:
    """The error for an unknown repository; it does not tell whether a folder outside of the roots exists."""
    add_it = "add it with `worker repositories add`"
    if not is_storable(name) or not Path(name).is_absolute():
        return Fatal(f"no repository is called '{shown(name)}': {add_it}")
    if not is_below_a_root(Path(name)):
        return Fatal(
            f"no repository is called {shown(name)}: {add_it}, or name a folder above it in WORKER_REPOSITORY_ROOTS"
        )
    try:
        check_folder(Path(name))
    except Fatal as error:
        return error
    return Fatal(f"no repository is called {name!r}: {add_it}")


@dataclass(slots=True)
class _Syncing:
    """One sync, while it runs."""

    repository: Repository
    index: SearchIndex
    embedder: Embedder
    record: SyncRecord
    progress: Progress | None
    stored: int = 0
    chunks: int = 0
    removed: int = 0
    replaced: bool = False
    failed: list[FailedFile] = field(default_factory=list)
    _storing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> Synced:
        found, scanned = await _scan(self.repository)
        known = await self.index.files_of(self.repository.name)
        todo = [one for one in found.values() if not _is_as_stored(one, known.get(one.path))]
        # The files of a folder that cannot be listed may still exist.
        closed = tuple(f"{one.path}/" for one in found.values() if one.failed)
        gone = [path for path in known if path not in found and not path.startswith(closed)]
        done = len(found) - len(todo)
        await self.record.save(replace(self.record.sync, scanned=scanned, matching=len(found), done=done))
        newest = max((one.stamp.changed_ns for one in todo), default=0)
        del found
        await self._remove(gone)
        await _let_the_clock_tick(newest)
        await self._store(todo, known)
        return await self._result()

    async def _remove(self, gone: Collection[str]) -> None:
        await self.index.remove_files(self.repository.name, gone)
        self.removed += len(gone)

    async def _store(self, todo: Sequence[Found], known: Mapping[str, FileState]) -> None:
        """Reads, embeds and stores the files in batches, a few of them at once."""
        room = asyncio.Semaphore(_IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                for batch in _batches(todo, RecallSettings.in_force().sync_batch):
                    await room.acquire()
                    task = group.create_task(self._store_batch(batch, known))
                    task.add_done_callback(lambda _: room.release())
        except ExceptionGroup as errors:
            # The error (retry at a time, give up) must reach the caller as it is.
            raise deciding(errors) from errors

    async def _store_batch(self, batch: Sequence[Found], known: Mapping[str, FileState]) -> None:
        largest = RecallSettings.in_force().sync_max_file_bytes
        read = await run_in_thread_pool(read_files, self.repository.path, batch, known, largest)
        touched = {one.path: one.state for one in read if one.chunks is None}
        changed = await self._embedded([one for one in read if one.chunks is not None])
        missing = {one.path for one in batch} - {one.path for one in read}
        if missing:
            await run_in_thread_pool(check_folder, self.repository.path)
        gone = missing & known.keys()
        name = self.repository.name
        # One after another: concurrent writers would only disturb each other.
        async with self._storing:
            await self.index.replace_files(name, changed)
            await self.index.touch_files(name, touched)
            await self._remove(gone)
            await self._note(changed, len(batch))
            if await self.index.is_scattered(in_between=True):
                # A long sync must not slow down searches. If other writers come first, the next batch optimizes.
                with contextlib.suppress(RetryLater):
                    await self.index.optimize()

    async def _note(self, stored: Sequence[FileChunks], count: int) -> None:
        self.replaced = self.replaced or bool(stored)
        for one in stored:
            if one.left_out is None:
                self.stored += 1
                self.chunks += len(one.chunks)
            elif one.left_out.startswith(FAILED):
                self.failed.append(FailedFile(one.path, one.left_out.removeprefix(FAILED)))
        sync = self.record.sync
        await self.record.save(replace(sync, done=sync.done + count))
        if self.progress is not None:
            failures = f", {len(self.failed)} failed" if self.failed else ""
            self.progress(self.record.sync.done, sync.matching, f"{counted(self.chunks, 'chunk')} stored{failures}")

    async def _embedded(self, files: Sequence[ReadFile]) -> list[FileChunks]:
        """The files with their vectors; a file fails if the embedder refuses its text."""
        try:
            return await self._with_vectors(files)
        except (Fatal, ValueError):
            await refuses_not_everything(self.embedder)
        embedded: list[FileChunks] = []
        for file in files:
            try:
                embedded += await self._with_vectors([file])
            except (Fatal, ValueError) as error:
                embedded += await self._with_vectors([failed(file.path, str(error))])
        return embedded

    async def _with_vectors(self, files: Sequence[ReadFile]) -> list[FileChunks]:
        texts = [searched(file.path, chunk.symbol, chunk.text) for file in files for chunk in file.chunks or ()]
        # Without texts, no request is needed.
        nothing: Vectors = np.zeros((0, self.embedder.dimensions), np.float32)
        vectors = await self.embedder.embed(texts) if texts else nothing
        return list(_with_their_vectors(files, vectors))

    async def _result(self) -> Synced:
        totals = await self.index.totals(self.repository.name)
        if totals.files == 0 and not self.failed:
            left = _counted(left_out_of(totals))
            seen = counted(self.record.sync.scanned, "file")
            raise NoContentFound(
                f"nothing to index in {self.repository.path}: git would see {seen}, "
                f"{self.record.sync.matching:,} of them wanted" + (f"; left out: {left}" if left else "")
            )
        if not (self.replaced or self.removed):
            raise Unchanged
        scattered = await self.index.is_scattered()
        return Synced(self.stored, self.chunks, self.removed, tuple(self.failed), totals, scattered)


def _with_their_vectors(files: Iterable[ReadFile], vectors: Vectors) -> Iterator[FileChunks]:
    at = 0
    for file in files:
        chunks = file.chunks or []
        yield FileChunks(
            path=file.path,
            language=file.language,
            hash=file.state.hash,
            size=file.state.size,
            changed_ns=file.state.changed_ns,
            chunks=chunks,
            vectors=vectors[at : at + len(chunks)],
            left_out=file.state.left_out,
        )
        at += len(chunks)


def _is_as_stored(found: Found, state: FileState | None) -> bool:
    """Whether the index has the file in its present state, as far as its size and time show."""
    if state is None or found.failed:
        return False
    was_read = state.hash != ""
    if found.left_out:
        # A file of blanks was read and is empty too, but has another size.
        return not was_read and found.left_out == state.left_out
    return was_read and (state.size, state.changed_ns) == (found.stamp.size, found.stamp.changed_ns)


def _batches(files: Iterable[Found], most: int) -> Iterator[list[Found]]:
    """Batches of at most `most` files, or fewer if they are large."""
    batch: list[Found] = []
    held = 0
    for one in files:
        size = 0 if one.left_out else one.stamp.size  # such a file is not read
        if batch and (len(batch) == most or held + size > _BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(one)
        held += size
    if batch:
        yield batch


async def _scan(repository: Repository) -> tuple[dict[str, Found], int]:
    """The wanted files by path, and the number of files that git would see."""
    largest = RecallSettings.in_force().sync_max_file_bytes
    scan = Scan(repository.path, Globs(repository.include, repository.exclude), largest)
    found: dict[str, Found] = {}
    try:
        await run_in_thread_pool(check_place, repository.path)
        walk = scan.files()
        while some := await run_in_thread_pool(_some, walk):
            # The escaped name of a file that is not UTF-8 may be another file's name.
            found.update((one.path, one) for one in some if not (one.left_out and one.path in found))
        # If the folder is gone now (a disk, a network drive), its files may still exist.
        await run_in_thread_pool(check_folder, repository.path)
    except PermissionError as error:
        raise Fatal(f"{repository.path} may not be read: {error.strerror}") from error
    except FileNotFoundError as error:
        raise Fatal(f"{repository.path} is not there") from error
    return found, scan.scanned


def _some(walk: Iterator[Found]) -> list[Found]:
    return list(islice(walk, _SLICE))


async def _let_the_clock_tick(newest_ns: int) -> None:
    """Waits until a file that changes from now on gets a later time than the file that changed last."""
    since = datetime.now(UTC).timestamp() - newest_ns / 1e9
    if 0 <= since < 2 * CLOCK_TICK:
        await asyncio.sleep(2 * CLOCK_TICK)
