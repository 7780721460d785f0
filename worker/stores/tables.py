"""Opens or makes the table of the search index; several processes may do so at once.

It must never replace a table that is not empty.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from worker.errors import ConfigurationError
from worker.loops.thread_pool import run_in_thread_pool
from worker.stores.lance import lance, load_lancedb, shared_caches
from worker.stores.layout import Made, schema_of

if TYPE_CHECKING:
    import lancedb

TABLE = "chunks"


@contextlib.asynccontextmanager
async def opened(folder: Path, made: Made) -> AsyncIterator[tuple[lancedb.AsyncConnection, lancedb.AsyncTable]]:
    """The connection to a folder, and its table; makes a missing table. It may be another embedder's table.

    Raises:
        ConfigurationError: The table cannot be opened.
        MissingExtra: LanceDB is not installed.
    """
    await run_in_thread_pool(_prepare, folder)
    try:
        connection = await _connect(folder)
        table = await _table(connection, made)
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(f"the search index in {folder} cannot be opened: {error}") from error
    with contextlib.closing(connection), contextlib.closing(table):
        yield connection, table


def _prepare(folder: Path) -> None:
    """Makes the folder, and loads LanceDB, which takes a second: not on the loop."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"WORKER_INDEX_DIR={folder}: cannot be made: {error.strerror}; name a folder of your own"
        ) from error
    load_lancedb()


async def _connect(folder: Path) -> lancedb.AsyncConnection:
    # Each search looks for the newest version, so that it finds new chunks at once.
    connection: lancedb.AsyncConnection = await lance("lancedb").connect_async(
        folder, read_consistency_interval=timedelta(0), session=shared_caches()
    )
    return connection


async def _table(connection: lancedb.AsyncConnection, made: Made) -> lancedb.AsyncTable:
    mode: Literal["create", "overwrite"] = "create"
    try:
        table = await connection.open_table(TABLE)
        if Made.read(await table.schema()) == made or await table.count_rows():
            return table
        mode = "overwrite"  # the table is empty: no vectors are lost
    except (ValueError, FileNotFoundError):
        pass
    try:
        return await connection.create_table(TABLE, schema=schema_of(made), mode=mode)
    except (ValueError, RuntimeError):
        # Another process was faster.
        return await connection.open_table(TABLE)
