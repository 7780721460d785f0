"""What keeps the search index fast, on a table that is large enough to need it."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from worker.bridge import run_async_in_new_loop
from worker.models.embedder import Vectors
from worker.settings import Settings
from worker.stores.chunks import FileChunks, NewChunk
from worker.stores.index import SearchIndex
from worker.stores.settings import StoreSettings

DIMENSIONS = 8
CHUNKS = 48_000
A_FILE = 400
LIMIT = 50


def files(vectors: Vectors, first: int = 0) -> Sequence[FileChunks]:
    """Files with a chunk for each vector; the text of each is its number."""
    return [
        FileChunks(
            path=f"{start + first}.py",
            language=None,
            hash="",
            size=1,
            changed_ns=1,
            chunks=[
                NewChunk(text=str(number + first), start_line=1, end_line=1) for number in range(start, start + A_FILE)
            ],
            vectors=vectors[start : start + A_FILE],
        )
        for start in range(0, len(vectors), A_FILE)
    ]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    """As many as are worth an index."""
    return np.random.default_rng(6).standard_normal((CHUNKS, DIMENSIONS)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vectors: Vectors) -> Path:
    """An index with a chunk for each, optimized."""
    made = tmp_path_factory.mktemp("upkeep")

    async def fill() -> None:
        async with SearchIndex.open(made, "made up", DIMENSIONS) as index:
            for start in range(0, CHUNKS, 6000):
                await index.replace_files("1", files(vectors[start : start + 6000], start))
            assert await index.is_scattered()
            assert await index.optimize()
            assert not await index.is_scattered()

    run_async_in_new_loop(fill)
    return made


def test_of_many_chunks_the_nearest_are_found_as_by_comparing_all(folder: Path, vectors: Vectors) -> None:
    """With the index of vectors, and with what was stored after it was made."""
    later = np.random.default_rng(7).standard_normal((A_FILE, DIMENSIONS)).astype(np.float32)
    everything = np.concatenate([vectors, later])
    asked = np.random.default_rng(8).standard_normal((20, DIMENSIONS)).astype(np.float32)

    async def nearest() -> tuple[set[str], list[list[str]]]:
        async with SearchIndex.open(folder, "made up", DIMENSIONS) as index:
            await index.replace_files("1", files(later, CHUNKS))
            names = {one.name for one in await index._table.list_indices()}
            answers = [await index.passages(await index.search_vector(one, limit=LIMIT)) for one in asked]
            return names, [[passage.text for passage in answer] for answer in answers]

    names, found = run_async_in_new_loop(nearest)
    assert names == {"id_idx", "vector_idx", "words_idx"}
    directions = everything / np.linalg.norm(everything, axis=1, keepdims=True)
    for one, texts in zip(asked, found, strict=True):
        wanted = {str(number) for number in np.argsort(-(directions @ one))[:LIMIT]}
        assert len(wanted & set(texts)) >= 0.96 * LIMIT
        assert texts[0] in wanted


def test_while_more_comes_a_share_of_it_may_be_in_no_index(folder: Path) -> None:
    """What puts it there writes the whole table anew: not after each few thousand chunks, then, but at the end."""

    async def ask() -> tuple[bool, bool]:
        async with SearchIndex.open(folder, "made up", DIMENSIONS) as index:
            more = np.ones((5200, DIMENSIONS), np.float32)
            await index.replace_files("2", files(more))
            return await index.is_scattered(in_between=True), await index.is_scattered()

    assert run_async_in_new_loop(ask) == (False, True)


def test_only_one_optimizes_at_a_time(settings: Settings) -> None:
    """Whoever comes second leaves it to the first."""

    async def ask() -> bool:
        async with SearchIndex.open(StoreSettings.in_force().index_dir, "made up", DIMENSIONS) as index:
            return await index.optimize()

    assert run_async_in_new_loop(ask)
    with (StoreSettings.in_force().index_dir / "upkeep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not run_async_in_new_loop(ask)
    assert run_async_in_new_loop(ask)
