"""Answers many questions, and stores the answers as an object.

It must never hold all answers at once: many questions with many hits do not fit into memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from worker.errors import NoContentFound
from worker.ground.json_values import compact
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
    """Answers questions one after another, and stores the answers as an object with one JSON value on each line.

    Returns:
        The object's path or URL.

    Raises:
        NoContentFound: There are no questions.
        BadQuestion: A question, the limit or the repository is not valid; no question was answered.
        ConfigurationError, RecallFailed: An error of `recall` for one question; nothing was stored.
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
    """Adds an answer, as one line."""
    with file.open("a", encoding="utf-8") as opened:
        opened.write(compact(answer) + "\n")
