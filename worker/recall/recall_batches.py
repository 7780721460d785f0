"""Answers many questions, and keeps the answers as an object.

It must never hold them all: a long list with many hits each is more than fits into memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from worker.errors import NoContentFound
from worker.loops.thread_pool import run_in_thread_pool
from worker.recall.recall import Answer, check_question, recall
from worker.stores.objects import object_store


async def recall_all(
    questions: Sequence[str],
    key: str,
    *,
    repository: str | None = None,
    limit: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Answers questions one after another, and keeps the answers as an object, one JSON value a line.

    Returns:
        Where the object is.

    Raises:
        NoContentFound: There are no questions.
        BadQuestion: One of them, the limit or the repository is unfit; none has been answered then.
        ConfigurationError, RecallFailed: As `recall`, of any of them; nothing is kept then.
    """
    if not questions:
        raise NoContentFound("there are no questions")
    for question in questions:
        check_question(question, limit)
    folder = await run_in_thread_pool(tempfile.TemporaryDirectory, prefix="recall-", ignore_cleanup_errors=True)
    try:
        answers = Path(folder.name) / "answers.jsonl"
        for number, question in enumerate(questions, start=1):
            answer = await recall(question, repository=repository, limit=limit)
            await run_in_thread_pool(_append, answers, answer)
            if progress is not None:
                progress(number, len(questions))
        objects = await object_store()
        await objects.write(key, answers)
        return objects.location(key)
    finally:
        await run_in_thread_pool(folder.cleanup)


def _append(file: Path, answer: Answer) -> None:
    """Adds a line."""
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(asdict(answer), default=str) + "\n")
