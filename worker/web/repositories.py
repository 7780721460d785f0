"""The repositories in the search index, as JSON; `worker.recall` describes and syncs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path
from pydantic import Field

from worker.loops.thread_pool import run_in_thread_pool
from worker.operations.answers import Enqueued
from worker.operations.audit import SYNC
from worker.recall.repositories import describe_repository
from worker.stores import repositories as stored
from worker.stores.repositories import SyncState, repository_store
from worker.web import actions, shapes
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


class Sync(shapes.Shape):
    """A repository's last sync."""

    state: SyncState
    started_at: shapes.Time
    updated_at: shapes.Time = Field(description="The time of its last update.")
    scanned: int = Field(description="The number of files that git would see.")
    matching: int = Field(description="The number of wanted files among them.")
    done: int = Field(description="The number of wanted files that are up to date in the index, or left out.")
    text: shapes.Text = Field(description="The outcome.")


class Repository(shapes.Shape):
    """A repository, with its numbers in the index and its last sync."""

    name: shapes.Text
    path: shapes.Text
    include: list[shapes.Text]
    exclude: list[shapes.Text]
    added_at: shapes.Time
    files: int
    chunks: int
    bytes: int
    left_out: dict[shapes.Text, int] = Field(description="How many files were left out, by the reason.")
    errors: int = Field(description="How many files could not be read or cut.")
    sync: Sync | None = Field(description="Null: it was never synced.")


class Repositories(shapes.Shape):
    """The repositories, in the order of their adding."""

    repositories: list[Repository]


@router.get("/repositories")
async def repositories() -> Repositories:
    """The repositories, in the order of their adding."""
    with unreadable_told():
        found = [await _described(one) for one in await (await repository_store()).all()]
    return Repositories(repositories=found)


@router.get("/repositories/{name}", responses=NOT_FOUND)
async def repository(name: RepositoryName) -> Repository:
    """One repository."""
    with unreadable_told():
        return await _described(await _known(name))


@router.post("/repositories/{name}/sync", status_code=201, responses=WITH_BODY | NOT_FOUND)
async def sync(name: RepositoryName, visitor: Acting, held: Held) -> Enqueued:
    """Enqueues a message that syncs the repository."""
    with unreadable_told():
        known = await _known(name)
    new = actions.NewMessage(actor="sync_repository", args=[known.name])
    return await run_in_thread_pool(actions.send, new, held, action=SYNC, target=known.name, by=visitor.name)


async def overview() -> tuple[Sequence[Repository | stored.Repository], str]:
    """All repositories for a page, and the index's error or an empty text; after an error, without their numbers."""
    known: Sequence[stored.Repository] = []
    try:
        known = await (await repository_store()).all()
        return [await _described(one) for one in known], ""
    except UNREADABLE as error:
        return known, reason_of(error)


async def _known(name: str) -> stored.Repository:
    found = await (await repository_store()).get(name)
    if found is None:
        raise HTTPException(404, f"no repository is called {name!r}: see `worker repositories list`")
    return found


async def _described(one: stored.Repository) -> Repository:
    return Repository.model_validate(await describe_repository(one))
