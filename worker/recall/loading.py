"""Loads the parts of recall before the first question comes, which would wait for them.

A part that fails is only logged: the question or the note that needs it fails with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from worker.ground.logs import get_logger
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedded import embedded_model
from worker.models.settings import ModelSettings
from worker.recall.settings import RecallSettings
from worker.stores.index import search_index
from worker.stores.lance import load_lancedb
from worker.stores.repositories import repository_store

logger = get_logger(__name__)


async def load_all() -> None:
    """Loads the models, and opens the search index and the database, within `WORKER_RECALL_TIMEOUT` each."""
    # One after another, because threads that import the same modules may find them half loaded.
    await tried("models", run_in_thread_pool(_load_models))
    limit = RecallSettings.in_force().recall_timeout
    await tried("search index", search_index(), limit)
    await tried("database", repository_store(), limit)


async def tried(part: str, work: Awaitable[object], limit: timedelta | None = None) -> None:
    """Awaits the loading of a part, and logs its failure.

    Args:
        part: Its name, for the log.
        work: The loading.
        limit: The longest time that it may take, or None.
    """
    try:
        async with asyncio.timeout(limit.total_seconds() if limit else None):
            await work
    except Exception as error:  # noqa: BLE001 - an edge: the rest of this process does not depend on it
        logger.warning("a part of recall is not ready", part=part, error=str(error) or type(error).__name__)


def _load_models() -> None:
    load_lancedb()
    if ModelSettings.in_force().embedder == "wordllama":
        embedded_model()
