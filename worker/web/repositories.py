"""Repositories that are kept in the search index, as JSON; what is known of them belongs to `worker.recall`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path
from pydantic import Field

from worker.recall.repositories import describe_repository
from worker.stores import repositories as stored
from worker.stores.repositories import SyncState, repository_store
from worker.web import actions, shapes
from worker.web.dependencies import Acting, InForce
from worker.web.problems import NOT_FOUND, WITH_BODY, Problem
from worker.web.unavailable import UNREADABLE, reason_of, unreadable_told

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "The index cannot be read, or must be made anew."}
}

router = APIRouter(tags=["repositories"], responses=_UNAVAILABLE)

# PostgreSQL takes no NUL, so nothing is called by a name with one.
RepositoryName = Annotated[
    str, Path(min_length=1, max_length=200, pattern=r"^[^\x00]+$", description="The repository's name.")
]


class Sync(shapes.Shape):
    """A repository's last sync."""

    state: SyncState
    started_at: shapes.Time
    updated_at: shapes.Time = Field(description="When it was last heard of.")
    scanned: int = Field(description="Files that git would see.")
    matching: int = Field(description="Those of them that are wanted.")
    done: int = Field(description="Those of these that are stored as they are now, or left out for a reason.")
    text: shapes.Text = Field(description="What it came to.")


class Repository(shapes.Shape):
    """A repository, how much is stored of it, and how its last sync goes or went."""

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
    """The repositories, in the order in which they were added."""

    repositories: list[Repository]


@router.get("/repositories")
async def repositories() -> Repositories:
    """The repositories, in the order in which they were added."""
    with unreadable_told():
        found = [await _described(one) for one in await (await repository_store()).all()]
    return Repositories(repositories=found)


@router.get("/repositories/{name}", responses=NOT_FOUND)
async def repository(name: RepositoryName) -> Repository:
    """One repository."""
    with unreadable_told():
        return await _described(await _known(name))


@router.post("/repositories/{name}/sync", status_code=201, responses=WITH_BODY | NOT_FOUND)
async def sync(name: RepositoryName, visitor: Acting, settings: InForce) -> actions.Enqueued:
    """Enqueues a message that brings the index to what is on disk."""
    with unreadable_told():
        known = await _known(name)
    new = actions.NewMessage(actor="sync_repository", args=[known.name])
    return await actions.enqueue(new, visitor, settings)


async def overview() -> tuple[Sequence[Repository | stored.Repository], str]:
    """All of them for a page, and what is wrong with the index; where anything is, without what is stored of them."""
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
