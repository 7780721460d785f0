"""The synced repositories: the folder of each, its wanted files, and the state of its last sync.

The numbers of stored files and chunks are counted in the index and never written here, so they cannot be wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Integer, MetaData, RowMapping, String, Table, Text, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.errors import ConfigurationError
from worker.ground.secrets import mask_secrets
from worker.loops.loop_resources import loop_resource
from worker.stores.database import Instant, is_storable, open_database, transaction

_LONGEST_SILENCE = timedelta(minutes=10)
"""The longest time between two updates of a running sync.

It is longer than a batch with its time-outs, and longer than the default time limit of an attempt.
"""

_schema = MetaData()

_repositories = Table(
    "repositories",
    _schema,
    Column("name", String(200), primary_key=True),
    Column("path", Text, nullable=False),
    Column("include", JSON, nullable=False),
    Column("exclude", JSON, nullable=False),
    Column("added_at", Instant(), nullable=False),
    Column("sync_state", String(20)),
    Column("sync_text", Text),
    Column("started_at", Instant()),
    Column("updated_at", Instant()),
    Column("scanned", Integer),
    Column("matching", Integer),
    Column("done", Integer),
)


class SyncState(StrEnum):
    """The state of a sync.

    SNOOZED: it was told to come back later. LOST is never stored: it is shown for a running sync without updates for a
    long time.
    """

    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    SNOOZED = "snoozed"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """A repository's last sync.

    Attributes:
        text: The outcome, or the reason for its end.
        updated_at: The time of its last update.
        scanned: The number of files that git would see.
        matching: The number of wanted files among them.
        done: The number of wanted files that are stored in their present state, or left out for a reason.
    """

    state: SyncState
    started_at: datetime
    updated_at: datetime
    scanned: int = 0
    matching: int = 0
    done: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository.

    Attributes:
        path: The folder's absolute path.
        include: Globs of the wanted files; empty for all files.
    """

    name: str
    path: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    added_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    sync: Sync | None = None


class RepositoryStore:
    """Repositories in a database.

    Args:
        engine: The database; its tables must exist. `repository_store` makes them.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, name: str) -> Repository | None:
        """The repository of this name, or None."""
        if not is_storable(name):
            return None
        return next(iter(await self._select(_repositories.c.name == name)), None)

    async def at(self, path: Path) -> Repository | None:
        """The repository of this folder, or None; the first added, if there are several."""
        return next(iter(await self._select(_repositories.c.path == str(path))), None)

    async def all(self) -> list[Repository]:
        """All repositories, in the order of their adding."""
        return await self._select()

    async def folders(self, names: Collection[str]) -> dict[str, Path]:
        """The folders of repositories by name; unknown names are left out."""
        return {one.name: one.path for one in await self._select(_repositories.c.name.in_(names))}

    async def add(self, repository: Repository) -> Repository:
        """Adds a repository, or changes the globs of its wanted files.

        Returns:
            The stored repository, with its last sync.

        Raises:
            ConfigurationError: Another folder has this name.
        """
        values = {"include": list(repository.include), "exclude": list(repository.exclude)}
        new = values | {"name": repository.name, "path": str(repository.path), "added_at": repository.added_at}
        try:
            async with transaction(self._engine) as connection:
                await connection.execute(_repositories.insert().values(new))
        except IntegrityError as error:
            known = await self.get(repository.name)
            if known is None or known.path != repository.path:
                raise ConfigurationError(
                    f"another repository is called {repository.name!r}: choose another name with --name"
                ) from error
            await self._update(repository.name, values)
            return replace(known, include=repository.include, exclude=repository.exclude)
        return repository

    async def remove(self, name: str) -> None:
        """Removes a repository."""
        async with transaction(self._engine) as connection:
            await connection.execute(_repositories.delete().where(_repositories.c.name == name))

    async def save_sync(self, name: str, sync: Sync) -> bool:
        """Stores the state of a sync; False if the repository was removed."""
        values = {
            "sync_state": sync.state.value,
            "sync_text": mask_secrets(sync.text),
            "started_at": sync.started_at,
            "updated_at": sync.updated_at,
            "scanned": sync.scanned,
            "matching": sync.matching,
            "done": sync.done,
        }
        return await self._update(name, values)

    async def _update(self, name: str, values: dict[str, Any]) -> bool:
        update = _repositories.update().where(_repositories.c.name == name).values(values)
        async with transaction(self._engine) as connection:
            return (await connection.execute(update)).rowcount > 0

    async def _select(self, *where: Any) -> list[Repository]:  # noqa: ANN401 - SQLAlchemy's conditions
        query = select(_repositories).where(*where).order_by(_repositories.c.added_at, _repositories.c.name)
        async with transaction(self._engine) as connection:
            return [_repository(row) for row in (await connection.execute(query)).mappings()]


def _repository(row: RowMapping) -> Repository:
    return Repository(
        name=row["name"],
        path=Path(row["path"]),
        include=tuple(row["include"]),
        exclude=tuple(row["exclude"]),
        added_at=row["added_at"],
        sync=None if row["sync_state"] is None else _sync(row),
    )


def _sync(row: RowMapping) -> Sync:
    state, text = SyncState(row["sync_state"]), row["sync_text"]
    if state is SyncState.RUNNING and datetime.now(UTC) - row["updated_at"] > _LONGEST_SILENCE:
        state, text = SyncState.LOST, "no update for a long time; the next sync continues it"
    return Sync(
        state=state,
        started_at=row["started_at"],
        updated_at=row["updated_at"],
        scanned=row["scanned"],
        matching=row["matching"],
        done=row["done"],
        text=text,
    )


@loop_resource
async def repository_store() -> AsyncIterator[RepositoryStore]:
    """The repositories of the configured database, upgraded at its first use. One engine per loop.

    Raises:
        ConfigurationError: `WORKER_DATABASE_URL` cannot be read, or names a driver that is not installed.
    """
    async with open_database() as engine:
        yield RepositoryStore(engine)


async def repository_folders(names: Collection[str]) -> dict[str, Path]:
    """The folders of repositories by name; unknown names are left out."""
    return await (await repository_store()).folders(names)
