"""The configured database, SQLite by default. Every store with tables opens it in this way."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import DateTime, Dialect, MetaData, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeDecorator

from worker.errors import ConfigurationError, WorkerError
from worker.ground.secrets import mask_secrets
from worker.loops.thread_pool import run_in_thread_pool
from worker.stores.settings import StoreSettings

_BUSY_SECONDS = 10
"""Seconds that a writer waits for another."""


class DatabaseFailed(WorkerError):
    """The database cannot be read or written: the disk is full, others keep it locked, or its server is away."""


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turns errors of the database into one typed error with one line of text.

    Raises:
        DatabaseFailed: The database failed.
        IntegrityError: The database works, but refuses the written values.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError) as error:  # each driver has its own error for a server that is away
        url = mask_secrets(StoreSettings.in_force().database_url.get_secret_value())
        said = error.orig if isinstance(error, DBAPIError) else error
        raise DatabaseFailed(f"the database {url} cannot be read or written: {said}") from error


def is_storable(text: str) -> bool:
    """Whether every database can store the text: it has no NUL and no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


class Instant(TypeDecorator[datetime]):
    """A moment, stored in UTC, so that moments compare correctly, and read back with its time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: D102
        return self.process_bind_param(value, dialect)  # SQLite forgets the zone


@contextlib.asynccontextmanager
async def open_database(schema: MetaData) -> AsyncIterator[AsyncEngine]:
    """The configured database; makes the missing tables of this schema.

    Raises:
        ConfigurationError: `WORKER_DATABASE_URL` cannot be read, or names a driver that is not installed.
        DatabaseFailed: Its server is away.
    """
    url = StoreSettings.in_force().database_url.get_secret_value()
    engine = _engine(url)
    try:
        if engine.dialect.name == "sqlite":
            await _prepare_sqlite(engine, schema, url)
        else:
            with failures_told():
                await _make_schema(engine, schema)
        yield engine
    finally:
        await engine.dispose()


def _engine(url: str) -> AsyncEngine:
    try:
        return create_async_engine(url)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"WORKER_DATABASE_URL={mask_secrets(url)}: its driver is missing: pip install {error.name}"
        ) from error
    except (ArgumentError, InvalidRequestError, ValueError) as error:
        raise ConfigurationError(
            f"WORKER_DATABASE_URL={mask_secrets(url)}: write an async URL such as sqlite+aiosqlite:///file.db"
        ) from error


async def _make_schema(engine: AsyncEngine, schema: MetaData) -> None:
    async with engine.begin() as connection:
        for table in schema.sorted_tables:
            await connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                await connection.execute(CreateIndex(index, if_not_exists=True))


async def _prepare_sqlite(engine: AsyncEngine, schema: MetaData, url: str) -> None:
    file = make_url(engine.url).database

    @event.listens_for(engine.sync_engine, "connect")
    def _share(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # Several worker processes write: writers wait for each other, and do not block readers.
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    try:
        if file and file != ":memory:":
            await run_in_thread_pool(_switch_to_wal, Path(file))
        await _make_schema(engine, schema)
    except (OSError, sqlite3.Error, DBAPIError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        raise ConfigurationError(f"WORKER_DATABASE_URL={mask_secrets(url)}: cannot be opened: {reason}") from error


def _switch_to_wal(file: Path) -> None:
    """Switches a database file to a write-ahead log, so that readers and a writer do not block each other."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite does not wait if two connections switch a new file at once.
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
