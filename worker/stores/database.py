"""The configured database, SQLite by default: opened the same way by every store that keeps tables in it."""

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
from worker.ground.secrets import mask_url
from worker.loops.thread_pool import run_in_thread_pool
from worker.settings import settings_in_force

_BUSY_SECONDS = 10
"""How long a writer waits for another."""


class DatabaseFailed(WorkerError):
    """The database cannot be read or written: the disk is full, others keep it locked, or its server is away."""


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Tells in one line what is wrong with the database.

    Raises:
        DatabaseFailed: Something is.
        IntegrityError: Not with the database, but with what is written.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError) as error:  # a server that is away is told in other words by each driver
        url = mask_url(settings_in_force().database_url.get_secret_value())
        said = error.orig if isinstance(error, DBAPIError) else error
        raise DatabaseFailed(f"the database {url} cannot be read or written: {said}") from error


def is_storable(text: str) -> bool:
    """Whether every database takes it: not with a NUL, nor with half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


class Instant(TypeDecorator[datetime]):
    """A moment: kept in UTC, so that moments compare as they should, and read back with its zone."""

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
    """The configured database, with these tables made where they are missing.

    Raises:
        ConfigurationError: `WORKER_DATABASE_URL` cannot be read, or names a driver that is not installed.
        DatabaseFailed: Its server is away.
    """
    url = settings_in_force().database_url.get_secret_value()
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
            f"WORKER_DATABASE_URL={mask_url(url)}: its driver is missing: pip install {error.name}"
        ) from error
    except (ArgumentError, InvalidRequestError, ValueError) as error:
        raise ConfigurationError(
            f"WORKER_DATABASE_URL={mask_url(url)}: write an async URL such as sqlite+aiosqlite:///file.db"
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
        # Several worker processes write: writers wait for each other, and readers are not blocked by them.
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
        raise ConfigurationError(f"WORKER_DATABASE_URL={mask_url(url)}: cannot be opened: {reason}") from error


def _switch_to_wal(file: Path) -> None:
    """Has a database file keep a write-ahead log, so that readers and a writer do not block each other."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite does not wait when two connections switch a new file at once.
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
