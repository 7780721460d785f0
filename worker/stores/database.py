"""The configured database, SQLite by default. Every store with tables opens it in this way."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import DateTime, Dialect, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool
from sqlalchemy.types import TypeDecorator

from worker.errors import ConfigurationError, WorkerError
from worker.ground.durations import format_duration
from worker.ground.secrets import mask_secrets
from worker.loops.thread_pool import run_in_thread_pool
from worker.stores.schema import VERSION, upgrade, version_of
from worker.stores.settings import StoreSettings

_BUSY_SECONDS = 10
"""Seconds that a writer waits for another."""

_PATIENCE = timedelta(seconds=30)
"""The time that a transaction may take as a whole, with connecting."""

_SHOWN = 500
"""The most characters of an error that are told."""

_LOCK = 0x776F726B6572  # "worker"
"""The number of the advisory lock under which a PostgreSQL is upgraded."""


class Upgrade(NamedTuple):
    """An upgrade of a database: its URL without secrets, the revision of its schema before, or None, and now."""

    database: str
    before: str | None
    now: str


class DatabaseFailed(WorkerError):
    """The database cannot be read or written: the disk is full, others keep it locked, or its server is away."""


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turns errors of the database, and time-outs, into one typed error with one line of text.

    Raises:
        DatabaseFailed: The database failed.
        IntegrityError: The database works, but refuses the written values.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError) as error:  # each driver has its own error for a server that is away
        url = StoreSettings.in_force().database_url.get_secret_value()
        said = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())[:_SHOWN]
        raise DatabaseFailed(mask_secrets(f"the database {url} cannot be read or written: {said}")) from error


@contextlib.asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction, whose errors are told as by `failures_told`."""
    with failures_told():
        async with _patience(), engine.begin() as connection:
            yield connection


@contextlib.asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """Gives up a server that does not answer.

    Raises:
        TimeoutError: It took too long.
    """
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()) as bound:
            yield
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise TimeoutError(f"no answer within {format_duration(_PATIENCE)}") from error


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
async def open_database() -> AsyncIterator[AsyncEngine]:
    """The configured database, with the schema that this program needs.

    The first program that meets an older schema upgrades it; others wait for that.

    Raises:
        ConfigurationError: `WORKER_DATABASE_URL` cannot be read, or names a driver that is not installed; or a later
            version of this program has upgraded the schema.
        DatabaseFailed: Its server is away, or the schema cannot be upgraded.
    """
    url = StoreSettings.in_force().database_url.get_secret_value()
    engine = _engine(url)
    try:
        await _prepare(engine, url)
        yield engine
    finally:
        await engine.dispose()


async def upgrade_database() -> Upgrade:
    """Upgrades the configured database, and tells its schema before and now.

    Raises:
        ConfigurationError: As for `open_database`.
        DatabaseFailed: As for `open_database`.
    """
    url = StoreSettings.in_force().database_url.get_secret_value()
    engine = _engine(url)
    try:
        before = await _prepare(engine, url)
    finally:
        await engine.dispose()
    return Upgrade(mask_secrets(url), before, VERSION)


def _engine(url: str) -> AsyncEngine:
    try:
        # A restart of the server cuts the connections that are kept: each is asked for a sign of life before its use.
        return create_async_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"WORKER_DATABASE_URL={mask_secrets(url)}: its driver is missing: pip install {error.name}"
        ) from error
    except (ArgumentError, InvalidRequestError, ValueError) as error:
        raise ConfigurationError(
            f"WORKER_DATABASE_URL={mask_secrets(url)}: write an async URL such as sqlite+aiosqlite:///file.db"
        ) from error


async def _prepare(engine: AsyncEngine, url: str) -> str | None:
    """Upgrades the schema if it must; its revision before that, or None."""
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _share)
        file = make_url(url).database
        if file and file != ":memory:":
            return await run_in_thread_pool(_prepare_file, url, Path(file))
    with failures_told():
        async with _patience(), engine.connect() as connection:
            before = await connection.run_sync(version_of)
        if before != VERSION:
            async with engine.begin() as connection:  # an upgrade takes as long as it takes
                if engine.dialect.name == "postgresql":
                    # Held until the transaction ends; those that wait find the schema upgraded.
                    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
                await connection.run_sync(upgrade)
    return before


def _share(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Several worker processes write: writers wait for each other, and do not block readers.
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _prepare_file(url: str, file: Path) -> str | None:
    """Switches a file to a write-ahead log, so that readers and a writer do not block each other, and upgrades it."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One at a time: SQLite does not wait if two connections switch a new file at once.
        with file.with_name(f"{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            return _upgrade_file(url)
    except (OSError, sqlite3.Error, DBAPIError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        raise ConfigurationError(f"WORKER_DATABASE_URL={mask_secrets(url)}: cannot be opened: {reason}") from error


def _upgrade_file(url: str) -> str | None:
    plain = make_url(url).set(drivername="sqlite")
    engine = create_engine(plain, poolclass=NullPool, connect_args={"timeout": _BUSY_SECONDS})
    # The driver's own transactions leave out what changes a schema: half an upgrade would stay.
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    with engine.connect() as connection:
        before = version_of(connection)
    if before != VERSION:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with engine.begin() as connection:
            upgrade(connection)
    return before
