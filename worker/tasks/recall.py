"""The actors for recall: they index notes and conversations, and answer questions in batches."""

from __future__ import annotations

from typing import Any

import dramatiq

from worker import Fatal, ProcessingStatusContext, current_attempt, lease, run_async_in_new_loop
from worker.broker import enqueue_unique
from worker.errors import ConfigurationError
from worker.ground.texts import counted
from worker.recall import indexing, recall, recall_batches


@dramatiq.actor(queue_name="network")
def capture_note(text: str, tags: list[str] | None = None, note_id: str | None = None) -> None:
    """Stores a note in the index; without an id, it gets the message's id."""
    name = note_id or _message_id()
    with ProcessingStatusContext("capture_note", note_id=name) as status:
        try:
            indexing.check_note(text, tags or [])
        except ConfigurationError as error:
            raise Fatal(str(error)) from error
        indexed = run_async_in_new_loop(indexing.capture(name, text, tags or []))
        _tidy_up(indexed)
        status.set_exit_message(indexed.describe())


@dramatiq.actor(queue_name="network", subject=("conversation_id",))
def index_conversation(conversation_id: str) -> None:
    """Indexes a conversation's transcript and summary."""
    with ProcessingStatusContext("index_conversation", conversation_id=conversation_id) as status:
        with lease(f"index:{conversation_id}"):
            indexed = run_async_in_new_loop(indexing.index_conversation(conversation_id))
        _tidy_up(indexed)
        status.set_exit_message(indexed.describe())


@dramatiq.actor(queue_name="network")
def recall_batch(questions: list[str], repository: str | None = None, limit: int = 10) -> None:
    """Answers questions, and stores the answers as an object with one JSON value on each line."""
    with ProcessingStatusContext("recall_batch") as status:
        key = f"recall/{_message_id()}.jsonl"
        options: dict[str, Any] = {"repository": repository, "limit": limit, "progress": status.progress}
        try:
            where = run_async_in_new_loop(recall_batches.recall_all(questions, key, **options))
        except recall.BadQuestion as error:
            raise Fatal(str(error)) from error
        status.set_exit_message(f"{counted(len(questions), 'question')} answered: {where}")


@dramatiq.actor(queue_name="cpu")
def optimize_index() -> None:
    """Joins the index's files, so that answers stay fast."""
    with ProcessingStatusContext("optimize_index"), lease("optimize_index"):
        run_async_in_new_loop(indexing.optimize_index())


def _message_id() -> str:
    attempt = current_attempt()
    if attempt is None:
        raise Fatal("this actor needs a message: enqueue it")
    return attempt.message_id


def _tidy_up(indexed: indexing.Indexed) -> None:
    if indexed.is_scattered:
        enqueue_unique(optimize_index.message(), key="optimize_index")
