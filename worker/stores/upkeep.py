"""Keeps the table of the search index fast to ask: its indexes by word, vector and id, and the files that it lies in.

Answers are right without any of it. It must never be done by two at once, nor cost more than the writing that called
for it: making few files of many writes the whole table anew.
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

# A reader may be at work on what was the newest version when it began.
_OLD = timedelta(minutes=5)

_MANY_FILES = 60
_MANY_ROWS = 5000
_SHARE = 8
_ROWS_A_FILE = 1000
"""Each file costs a question some tenths of a millisecond, and writing so many rows anew about 60 ms."""

_WORTH_AN_INDEX = 20_000
"""Rows: the vectors of fewer are compared, one and all, in some milliseconds."""

_WORDS, _VECTORS, _IDS = "words_idx", "vector_idx", "id_idx"


async def ensure_indexes(table: lancedb.AsyncTable) -> None:
    """Makes the indexes that every table has: by word, and by id."""
    index = lance("lancedb.index")
    # Our own words are the tokens: nothing is left to be done to them.
    plain = {"stem": False, "lower_case": False, "remove_stop_words": False, "ascii_folding": False}
    words = index.FTS(base_tokenizer="whitespace", max_token_length=None, **plain)
    await _ensure(table, _WORDS, "words", words)
    await _ensure(table, _IDS, "id", index.BTree())


async def is_scattered(table: lancedb.AsyncTable, *, in_between: bool) -> bool:
    """Whether it lies in so many files, or so much of it is in no index, that answers take longer.

    Args:
        table: Of the chunks.
        in_between: Much more is about to be written. Then more may be in no index: what puts it there writes the
            whole table anew, so it has to grow by a share each time.
    """
    stats: Any = await table.stats()  # a dict, whatever its annotation says
    rows, files = stats["num_rows"], stats["fragment_stats"]["num_fragments"]
    if files > _MANY_FILES + rows // _ROWS_A_FILE:
        return True
    most = max(_MANY_ROWS, rows // _SHARE if in_between else 0)
    return rows > most and any((one.num_unindexed_rows or 0) > most for one in await table.list_indices())


async def optimize(table: lancedb.AsyncTable, folder: Path) -> bool:
    """Makes few files of many, indexes what is new, and drops what no reader needs any more.

    Args:
        table: Of the chunks.
        folder: The table's.

    Returns:
        Whether it was done; nothing is, while somebody else, in any process, is at it.
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


async def _ensure(table: lancedb.AsyncTable, name: str, column: str, config: Any) -> None:  # noqa: ANN401 - of types that are loaded when they are needed
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
