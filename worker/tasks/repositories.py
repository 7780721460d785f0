"""The actor that makes the search index match a repository on disk."""

from __future__ import annotations

import dramatiq

from worker import ProcessingStatusContext, lease, run_async_in_new_loop
from worker.broker import enqueue_unique
from worker.recall import repositories, repository_sync
from worker.tasks.recall import optimize_index


@dramatiq.actor(queue_name="cpu")
def sync_repository(path_or_name: str) -> None:
    """Makes the index match the repository's files on disk; one sync of a repository at a time."""
    name = run_async_in_new_loop(repositories.name_of(path_or_name))
    with ProcessingStatusContext("sync_repository", repository=name) as status:
        with lease(repositories.lease_name(name)):
            synced = run_async_in_new_loop(repository_sync.sync_repository(name, progress=status.progress))
        if synced.is_scattered:
            enqueue_unique(optimize_index.message(), key="optimize_index")
        status.set_exit_message(synced.describe())
