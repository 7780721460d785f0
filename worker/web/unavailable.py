"""Turns errors of the search index or its database into an answer with 503."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fastapi import HTTPException
from sqlalchemy.exc import SQLAlchemyError

from worker.errors import WorkerError
from worker.ground.logs import get_logger

logger = get_logger(__name__)

UNREADABLE = (WorkerError, SQLAlchemyError, OSError, RuntimeError)
"""The errors of a database or an index that cannot be opened or read, or of an index of another embedder."""


@contextlib.contextmanager
def unreadable_told() -> Iterator[None]:
    """Answers 503 if the database or the index cannot be read."""
    try:
        yield
    except UNREADABLE as error:
        raise HTTPException(503, reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """The reason why they cannot be read, as one line; also logs it."""
    logger.warning("the search index or its database cannot be read", error=str(error))
    return str(error) if isinstance(error, WorkerError) else f"the database or the search index is broken: {error}"
