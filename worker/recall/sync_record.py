"""The record of a repository's sync, which `worker repositories show` and the dashboard show.

It is right after every end of a sync, except if the process was killed: then the next sync replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from worker.errors import Fatal, NoContentFound, RetryLater
from worker.stores.repositories import Repository, RepositoryStore, Sync, SyncState


class RepositoryRemoved(Fatal):
    """The repository was removed while it was synced."""


class SyncRecord:
    """The progress of a running sync.

    Args:
        store: The store of the repositories.
        repository: The synced repository.
    """

    def __init__(self, store: RepositoryStore, repository: Repository) -> None:
        now = datetime.now(UTC)
        self._store = store
        self._name = repository.name
        self.sync = Sync(state=SyncState.RUNNING, started_at=now, updated_at=now)

    async def save(self, sync: Sync) -> None:
        """Stores the state of the sync, with the present time.

        Raises:
            RepositoryRemoved: The repository was removed.
        """
        self.sync = replace(sync, updated_at=datetime.now(UTC))
        if not await self._store.save_sync(self._name, self.sync):
            raise RepositoryRemoved(f"{self._name!r} was removed while it was synced")


@asynccontextmanager
async def recorded(store: RepositoryStore, repository: Repository) -> AsyncIterator[SyncRecord]:
    """A record that stores, at the end of the block, the outcome of the sync."""
    record = SyncRecord(store, repository)
    await record.save(record.sync)
    try:
        yield record
    except asyncio.CancelledError:
        await record.save(replace(record.sync, state=SyncState.CANCELLED))
        raise
    except Exception as error:
        text = str(error) or type(error).__name__
        await record.save(replace(record.sync, state=_state_after(error), text=text))
        raise
    await record.save(replace(record.sync, state=SyncState.COMPLETED))


def _state_after(error: Exception) -> SyncState:
    if isinstance(error, NoContentFound):
        return SyncState.SKIPPED
    return SyncState.SNOOZED if isinstance(error, RetryLater) else SyncState.FAILED
