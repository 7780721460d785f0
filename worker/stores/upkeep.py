"""Keeps searches fast: maintains the table's indexes by word, vector and id, and joins its files.

Answers are right without it. Two processes must never do it at once, and it must not cost more than the writes that
made it necessary: joining the files writes the whole table again.
"""

from __future__ import annotations

import fcntl
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from worker.loops.thread_pool import run_in_thread_pool
from worker.stores.lance import lance

if TYPE_CHECKING:
    import lancedb

# A reader may still use the version that was the newest at its start.
_OLD = timedelta(minutes=5)

_MANY_FILES = 60
_MANY_ROWS = 5000
_SHARE = 8
_ROWS_A_FILE = 1000
"""Rows for which one file is right: each file costs a search some tenths of a millisecond, writing the rows 60 ms."""

_WORTH_AN_INDEX = 20_000
"""Rows from which a vector index pays: comparing the vectors of fewer rows takes some milliseconds."""

_WORDS, _VECTORS, _IDS = "words_idx", "vector_idx", "id_idx"


async def ensure_indexes(table: lancedb.AsyncTable) -> None:
    """Makes the indexes that every table has: by word, and by id."""
    index = lance("lancedb.index")
    # The tokens are our own words, and need no further processing.
    plain = {"stem": False, "lower_case": False, "remove_stop_words": False, "ascii_folding": False}
    words = index.FTS(base_tokenizer="whitespace", max_token_length=None, **plain)
    await _ensure(table, _WORDS, "words", words)
    await _ensure(table, _IDS, "id", index.BTree())


async def is_scattered(table: lancedb.AsyncTable, *, in_between: bool) -> bool:
    """Whether answers take longer, because the table has many files, or many rows outside of its indexes.

    Args:
        table: The table of the chunks.
        in_between: True while much more is about to be written. Then more rows may be outside: indexing them writes
            the whole table again, so the table must have grown by a share first.
    """
    stats: Any = await table.stats()  # a dict, despite its annotation
    rows, files = stats["num_rows"], stats["fragment_stats"]["num_fragments"]
    if files > _MANY_FILES + rows // _ROWS_A_FILE:
        return True
    most = max(_MANY_ROWS, rows // _SHARE if in_between else 0)
    return rows > most and any((one.num_unindexed_rows or 0) > most for one in await table.list_indices())


async def optimize(table: lancedb.AsyncTable, folder: Path) -> bool:
    """Joins the table's files, indexes new rows, and drops old versions.

    Args:
        table: The table of the chunks.
        folder: The table's folder.

    Returns:
        False if another process or task is doing it, so that nothing was done.
    """
    lock = await run_in_thread_pool(_locked, folder / "upkeep.lock")
    if lock is None:
        return False
    with lock:
        if await table.count_rows("vector IS NOT NULL") >= _WORTH_AN_INDEX:
            await _ensure(table, _VECTORS, "vector", lance("lancedb.index").IvfSq(distance_type="cosine"))
        await table.optimize(cleanup_older_than=_OLD)
    return True


def _locked(path: Path) -> IO[str] | None:
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


async def _ensure(table: lancedb.AsyncTable, name: str, column: str, config: Any) -> None:  # noqa: ANN401 - types of modules that are loaded later
    if name in await _indexes(table):
        return
    try:
        await table.create_index(column, config=config, replace=False, name=name)
    except (ValueError, RuntimeError):
        # Another process was faster.
        if name not in await _indexes(table):
            raise


async def _indexes(table: lancedb.AsyncTable) -> set[str]:
    return {index.name for index in await table.list_indices()}
