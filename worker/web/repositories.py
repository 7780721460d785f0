"""The repositories in the search index, as JSON; `worker.recall` describes and syncs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Response

from worker.loops.thread_pool import run_in_thread_pool
from worker.operations.answers import Enqueued
from worker.operations.audit import SYNC
from worker.recall.repositories import (
    NoSuchRepository,
    RepositoryAnswer,
    RepositoryAnswers,
    describe_repositories,
    describe_repository,
    known_repositories,
    known_repository,
)
from worker.web import actions
from worker.web.answers import told
from worker.web.dependencies import Acting, Held
from worker.web.problems import NOT_FOUND, WITH_BODY, Problem
from worker.web.unavailable import UNREADABLE, reason_of, unreadable_told

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "The index cannot be read, or must be rebuilt."}
}

router = APIRouter(tags=["repositories"], responses=_UNAVAILABLE)

# PostgreSQL takes no NUL, so no repository has one in its name.
RepositoryName = Annotated[
    str, Path(min_length=1, max_length=200, pattern=r"^[^\x00]+$", description="The repository's name.")
]


@router.get("/repositories", response_model=RepositoryAnswers)
async def repositories() -> Response:
    """The repositories, in the order of their adding."""
    with _problems_told():
        return told(await describe_repositories())


@router.get("/repositories/{name}", response_model=RepositoryAnswer, responses=NOT_FOUND)
async def repository(name: RepositoryName) -> Response:
    """One repository."""
    with _problems_told():
        return told(await describe_repository(await known_repository(name)))


@router.post("/repositories/{name}/sync", status_code=201, responses=WITH_BODY | NOT_FOUND)
async def sync(name: RepositoryName, visitor: Acting, held: Held) -> Enqueued:
    """Enqueues a message that syncs the repository."""
    with _problems_told():
        known = await known_repository(name)
    new = actions.NewMessage(actor="sync_repository", args=[known.name])
    return await run_in_thread_pool(actions.send, new, held, action=SYNC, target=known.name, by=visitor.name)


async def overview() -> tuple[Sequence[object], str]:
    """All repositories for a page, and the index's error or an empty text; after an error, without their numbers."""
    known: Sequence[object] = []
    try:
        known = await known_repositories()
        return (await describe_repositories()).repositories, ""
    except UNREADABLE as error:
        return known, reason_of(error)


@contextlib.contextmanager
def _problems_told() -> Iterator[None]:
    """Answers 404 for a name that no repository has, and 503 if the database or the index cannot be read."""
    with unreadable_told():
        try:
            yield
        except NoSuchRepository as error:
            raise HTTPException(404, str(error)) from error
