"""Questions to the search index, and notes for it, as JSON; `worker.recall` answers and stores."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from worker.loops.thread_pool import run_in_thread_pool
from worker.operations.actors import load_actors
from worker.operations.audit import ENQUEUE
from worker.recall import indexing, loading, recall
from worker.settings import Settings
from worker.web import actions, shapes
from worker.web.answers import told
from worker.web.dependencies import Acting, Held
from worker.web.parameters import Name
from worker.web.problems import NOT_FOUND, WITH_BODY, Problem
from worker.web.unavailable import unreadable_told

router = APIRouter(tags=["recall"], responses=WITH_BODY)

_LONGEST_QUESTION = 100_000
"""The most characters of a question. If it is longer than `recall.LONGEST_QUESTION`, the answer says so."""


class _Body(BaseModel):
    # A misspelt name must be an error.
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Body):
    """A question."""

    question: Annotated[str, Field(min_length=1, max_length=_LONGEST_QUESTION, pattern=r"\S")]
    repository: Name | None = Field(
        None, description="Only this repository; null for all, with conversations and notes."
    )
    limit: int = Field(10, ge=1, le=recall.MOST_HITS, strict=True)


class Note(_Body):
    """A note to be found later."""

    text: Annotated[str, Field(min_length=1, max_length=indexing.LONGEST_NOTE, pattern=r"\S")]
    tags: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=indexing.LONGEST_TAG, pattern=r"\S")]],
        Field(max_length=indexing.MOST_TAGS),
    ] = []


class Captured(shapes.Shape):
    """The enqueued note, which a worker puts into the index."""

    note_id: str


@router.post(
    "/recall",
    response_model=recall.Answer,
    responses={503: {"model": Problem, "description": "The index cannot be asked, or must be rebuilt."}},
)
async def ask(asked: Question) -> Response:
    """Finds code, conversations and notes that answer a question."""
    with unreadable_told():
        try:
            answer = await recall.recall(asked.question, repository=asked.repository, limit=asked.limit)
        except recall.BadQuestion as error:
            raise HTTPException(422, str(error)) from error
    return told(answer)


@router.post("/capture", status_code=202, responses=NOT_FOUND)
async def capture(note: Note, visitor: Acting, held: Held) -> Captured:
    """Enqueues a note; it is found as soon as a worker has put it into the index."""
    new = actions.NewMessage(actor="capture_note", args=[note.text, list(note.tags)])
    sent = await run_in_thread_pool(actions.send, new, held, action=ENQUEUE, target=new.actor, by=visitor.name)
    return Captured(note_id=sent.message_id)


async def get_ready(settings: Settings) -> None:
    """Loads the parts for which the first question and the first note would wait.

    A part that fails is only logged: the question or the note that needs it fails with the reason.
    """
    # One after another, because threads that import the same modules may find them half loaded.
    await loading.tried("actors", run_in_thread_pool(load_actors, settings))
    await loading.load_all()
