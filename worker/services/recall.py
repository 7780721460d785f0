"""Answers a question with what the index holds: code, transcripts, summaries and notes.

The index is asked by vector and by word at once, the two rankings are fused, a reranker may order them anew, and
snippets are read from the files. It must never fail or wait because one of these parts does: the answer goes without
it, and says so.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from worker.bridge import loop_resource, run_in_thread_pool
from worker.durations import format_duration
from worker.errors import ConfigurationError, NoContentFound, WorkerError
from worker.logs import get_logger
from worker.models.embedder import Vectors, embedder
from worker.models.reranker import Reranker, reranker
from worker.services import snippets
from worker.services.fusing import fuse
from worker.services.snippets import Snippet
from worker.settings import settings_in_force
from worker.stores.chunks import Kind, Passage, Ranked
from worker.stores.index import SearchIndex, search_index
from worker.stores.objects import object_store
from worker.stores.repositories import repository_store
from worker.texts import shown

T = TypeVar("T")

logger = get_logger(__name__)

MOST_HITS = 100
LONGEST_QUESTION = 8000
"""Characters of a question that count."""

_DEPTH = 100
"""How far down each ranking is looked at."""

_SEARCHES_AT_ONCE = max(2, os.cpu_count() or 1)

_RERANKED = 30
"""How many a reranker is shown, if no more hits are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Something that was found.

    Attributes:
        repository: Empty for what is in none.
        path: The file's within its repository; else the conversation's id, or the note's.
        score: Higher is better; only within one answer comparable.
        changed: Whether the file is another than the one that was indexed; `None` of what is in no file.
    """

    kind: Kind
    repository: str
    path: str
    start_line: int
    end_line: int
    language: str | None
    symbol: str | None
    score: float
    snippet: str
    changed: bool | None
    created: datetime


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part that the answer goes without."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, the best first, and what the answer goes without."""

    question: str
    hits: tuple[Hit, ...]
    left_out: tuple[LeftOut, ...]

    def describe(self) -> str:
        """One line for the history."""
        without = f", without {', '.join(one.part for one in self.left_out)}" if self.left_out else ""
        return f"{len(self.hits)} hits{without}"


@dataclass(slots=True)
class _Parts:
    """The parts of one answer: each has its time, and those that fail are noted."""

    limit: timedelta
    left_out: list[LeftOut]

    async def get(self, part: str, work: Coroutine[Any, Any, T]) -> T | None:
        """What a part brings; `None` if it fails or is too slow."""
        try:
            async with asyncio.timeout(self.limit.total_seconds()):
                return await work
        except TimeoutError:
            took = format_duration(self.limit)
            self.leave_out(part, f"it took longer than {took} (WORKER_RECALL_TIMEOUT)")
        except ConfigurationError:
            raise
        except (WorkerError, OSError, RuntimeError, ValueError) as error:
            self.leave_out(part, str(error) or type(error).__name__)
        return None

    def leave_out(self, part: str, reason: str) -> None:
        logger.warning("an answer goes without a part", part=part, reason=reason)
        self.left_out.append(LeftOut(part, reason))


async def recall(question: str, *, repository: str | None = None, limit: int = 10) -> Answer:
    """Finds what answers a question.

    Args:
        question: Words of any language, a name, a line of code; nothing in it is syntax.
        repository: Only there; `None`: everywhere, in conversations and notes too.
        limit: The most hits, from 1 to `MOST_HITS`.

    Raises:
        ConfigurationError: The question is blank, the limit unfit, there is no such repository, or the index was made
            by another embedder.
        RecallFailed: It could be asked neither by vector nor by word.
    """
    if not question.strip():
        raise ConfigurationError("the question is blank: ask for something")
    if not 1 <= limit <= MOST_HITS:
        raise ConfigurationError(f"the limit is {limit}: ask for 1 to {MOST_HITS} hits")
    parts = _Parts(settings_in_force().recall_timeout, [])
    if len(question) > LONGEST_QUESTION:
        parts.leave_out("question", f"only its first {LONGEST_QUESTION} characters of {len(question)} were read")
        question = question[:LONGEST_QUESTION]
    if repository is not None:
        await _check_repository(repository)
    index, model = await search_index(), await reranker()
    enough = limit if model is None else max(limit, _RERANKED)
    found = await _candidates(index, parts, question, repository, enough)
    best = found if model is None else await _reranked(model, parts, question, found, limit)
    read = await _snippets(parts, best)
    hits = (_hit(passage, snippet) for passage, snippet in zip(best, read, strict=True))
    return Answer(question, tuple(hits), tuple(parts.left_out))


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
        ConfigurationError, RecallFailed: As `recall`, of any of them; nothing is kept then.
    """
    if not questions:
        raise NoContentFound("there are no questions")
    lines = []
    for number, question in enumerate(questions, start=1):
        answer = await recall(question, repository=repository, limit=limit)
        lines.append(json.dumps(asdict(answer), default=str))
        if progress is not None:
            progress(number, len(questions))
    objects = await object_store()
    await objects.write(key, "".join(f"{line}\n" for line in lines).encode())
    return objects.location(key)


class RecallFailed(WorkerError):
    """The index could be asked neither by vector nor by word, or not read; retried where a message asked."""


async def _candidates(
    index: SearchIndex, parts: _Parts, question: str, repository: str | None, enough: int
) -> list[Passage]:
    """The best of what either search has found, each once."""
    turns = await _turns()
    where: dict[str, Any] = {"limit": max(enough, _DEPTH), "repository": repository}

    async def by_vector() -> list[Ranked] | None:
        vectors = await parts.get("vectors", _embedded(question))
        if vectors is None:
            return None
        [vector] = vectors
        if not vector.any():  # to the embedder the question says nothing
            return []
        async with turns:
            return await parts.get("vectors", index.search_vector(vector, **where))

    async def by_word() -> list[Ranked] | None:
        async with turns:
            return await parts.get("words", index.search_text(question, **where))

    rankings = await asyncio.gather(by_vector(), by_word())
    asked = [[one.id for one in ranking] for ranking in rankings if ranking is not None]
    best = [Ranked(*one) for one in fuse(asked)[:enough]]
    found = await parts.get("passages", index.passages(best)) if asked else None
    if found is None:
        raise RecallFailed("; ".join(f"{one.part}: {one.reason}" for one in parts.left_out))
    return found


@loop_resource
async def _turns() -> AsyncIterator[asyncio.Semaphore]:
    """Searches compute: more of them at once than there are cores only keep each other, and the loop, from ending."""
    yield asyncio.Semaphore(_SEARCHES_AT_ONCE)


async def _embedded(question: str) -> Vectors:
    return await (await embedder()).embed([question])


async def _reranked(
    model: Reranker, parts: _Parts, question: str, found: Sequence[Passage], limit: int
) -> list[Passage]:
    """The best of what was found."""
    if len(found) < 2:  # noqa: PLR2004 - one is in order
        return list(found)
    scores = await parts.get("reranker", model.rank(question, [f"{one.path}\n{one.text}" for one in found]))
    if scores is None:
        return list(found[:limit])
    ranked = [replace(passage, score=score) for passage, score in zip(found, scores, strict=True)]
    return sorted(ranked, key=lambda passage: -passage.score)[:limit]


async def _check_repository(name: str) -> None:
    if await (await repository_store()).get(name) is None:
        raise ConfigurationError(f"no repository {shown(name)!r}: `worker repositories list` shows those there are")


async def _snippets(parts: _Parts, found: Sequence[Passage]) -> list[Snippet]:
    """What was found as it reads now; where a file cannot be read in time, as it was indexed."""
    repositories = {passage.repository for passage in found if passage.kind == "code"}
    known = await parts.get("repositories", _folders(repositories)) if repositories else None
    to_read = [passage for passage in found if known and passage.repository in known]
    read = await _in_time(parts, known, to_read) if known and to_read else {}
    return [read.get(passage.id) or snippets.stored(passage) for passage in found]


async def _folders(repositories: Collection[str]) -> dict[str, Path]:
    return await (await repository_store()).folders(repositories)


async def _in_time(parts: _Parts, folders: Mapping[str, Path], found: Sequence[Passage]) -> dict[str, Snippet]:
    """Those that could be read, by the passage's id; for what takes too long, nobody waits."""
    # One call of the pool for all of them: each would have to wait for a thread, and for the interpreter.
    read: dict[str, Snippet | OSError] = {}
    reading = asyncio.ensure_future(run_in_thread_pool(snippets.read_each, folders, found, read))
    done, _ = await asyncio.wait([reading], timeout=parts.limit.total_seconds())
    if done:
        reading.result()
    else:
        reading.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        late = len(found) - len(read)
        parts.leave_out("files", f"{late} took longer than {format_duration(parts.limit)}: shown as indexed")
    outcomes = dict(read)
    failures = [one for one in outcomes.values() if isinstance(one, OSError)]
    if failures:
        parts.leave_out("files", f"{len(failures)} cannot be read: {failures[0]}: shown as indexed")
    return {key: one for key, one in outcomes.items() if isinstance(one, Snippet)}


def _hit(passage: Passage, snippet: Snippet) -> Hit:
    return Hit(
        kind=passage.kind,
        repository=passage.repository,
        path=passage.path,
        start_line=snippet.start_line,
        end_line=snippet.end_line,
        language=passage.language,
        symbol=passage.symbol,
        score=passage.score,
        snippet=snippet.text,
        changed=snippet.changed,
        created=passage.created,
    )
