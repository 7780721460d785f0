"""Answers a question from the index: with code, transcripts, summaries and notes.

It searches the index by vector and by word at once, fuses the two rankings, may have a reranker order the result, and
reads snippets from the files. If one of these parts fails or hangs, it must not fail or hang too: the answer goes
without that part, and names it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from worker.errors import ConfigurationError, IndexMismatch, WorkerError
from worker.ground.durations import format_duration
from worker.ground.logs import get_logger
from worker.ground.texts import counted, shown
from worker.loops.loop_resources import loop_resource
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedder import Vectors, embedder
from worker.models.reranker import Reranker, reranker
from worker.recall import snippets
from worker.recall.fusing import fuse
from worker.recall.settings import RecallSettings
from worker.recall.snippets import Snippet
from worker.settings import Settings
from worker.stores.chunks import Kind, Passage, Ranked
from worker.stores.index import SearchIndex, search_index
from worker.stores.lance import load_lancedb
from worker.stores.repositories import repository_store

T = TypeVar("T")

logger = get_logger(__name__)

MOST_HITS = 100
LONGEST_QUESTION = 8000
"""Characters of a question that are read; the rest is ignored."""

_DEPTH = 100
"""The number of hits that are read from each ranking."""

_SEARCHES_AT_ONCE = max(2, os.cpu_count() or 1)

_RERANKED = 30
"""The fewest hits that are sent to a reranker; more if the limit is higher."""


class BadQuestion(ConfigurationError):
    """The question is blank, the limit is out of range, or the repository does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One result of a question.

    Attributes:
        repository: The repository's name; empty for conversations and notes.
        path: The file's path within its repository, or the id of the conversation or note.
        score: Higher is better; comparable only within one answer.
        changed: Whether the file has changed since it was indexed, or None (not a file, or not known).
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
    """A part that the answer goes without, because it was too slow or failed, and the reason."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, the best first, and the parts that the answer goes without."""

    question: str
    hits: tuple[Hit, ...]
    left_out: tuple[LeftOut, ...]

    def describe(self) -> str:
        """One line for the history."""
        without = f", without {', '.join(one.part for one in self.left_out)}" if self.left_out else ""
        return f"{counted(len(self.hits), 'hit')}{without}"


@dataclass(slots=True)
class _Parts:
    """The parts of one answer: each has a time limit, and a list holds those that fail."""

    limit: timedelta
    left_out: list[LeftOut]

    async def get(self, part: str, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of a part, or None if it fails or is too slow."""
        try:
            async with asyncio.timeout(self.limit.total_seconds()):
                return await work
        except TimeoutError:
            took = format_duration(self.limit)
            self.leave_out(part, f"it took longer than {took} (WORKER_RECALL_TIMEOUT)")
        except IndexMismatch:  # an answer by words alone would hide that the index must be rebuilt
            raise
        except (WorkerError, OSError, RuntimeError, ValueError) as error:
            self.leave_out(part, str(error) or type(error).__name__)
        return None

    def leave_out(self, part: str, reason: str) -> None:
        logger.warning("an answer goes without a part", part=part, reason=reason)
        self.left_out.append(LeftOut(part, reason))


def check_question(question: str, limit: int) -> None:
    """Refuses a question that no index can answer.

    Raises:
        BadQuestion: The question is blank, or the limit is out of range.
    """
    if not question.strip():
        raise BadQuestion("the question is blank: ask for something")
    if not 1 <= limit <= MOST_HITS:
        raise BadQuestion(f"the limit is {limit}: ask for 1 to {MOST_HITS} hits")


async def recall(question: str, *, repository: str | None = None, limit: int = 10) -> Answer:
    """Answers a question.

    Args:
        question: Words of any language, a name, or a line of code; it has no syntax.
        repository: The name of one repository, or None for all, with conversations and notes.
        limit: The most hits, from 1 to `MOST_HITS`.

    Raises:
        BadQuestion: The question is blank, the limit is out of range, or the repository does not exist.
        IndexMismatch: Another embedder made the index.
        ConfigurationError: The index or the database cannot be opened.
        RecallFailed: Both searches failed, or the index could not be opened in time.
    """
    check_question(question, limit)
    parts = _Parts(RecallSettings.in_force().recall_timeout, [])
    if len(question) > LONGEST_QUESTION:
        parts.leave_out("question", f"only its first {LONGEST_QUESTION} characters of {len(question)} were read")
        question = question[:LONGEST_QUESTION]
    index, model = await _opened(parts, repository)
    enough = limit if model is None else max(limit, _RERANKED)
    found = await _candidates(index, parts, question, repository, enough)
    best = found if model is None else await _reranked(model, parts, question, found, limit)
    read = await _snippets(parts, best)
    hits = (_hit(passage, snippet) for passage, snippet in zip(best, read, strict=True))
    return Answer(question, tuple(hits), tuple(parts.left_out))


class RecallFailed(WorkerError):
    """Both searches of the index failed, or it cannot be read. A message that asked is retried."""


async def _opened(parts: _Parts, repository: str | None) -> tuple[SearchIndex, Reranker | None]:
    """Opens the parts that every answer needs: the index, and the reranker or None."""
    await run_in_thread_pool(load_lancedb)  # outside the time limit: a slow load does not mean a broken index
    try:
        async with asyncio.timeout(parts.limit.total_seconds()):
            if repository is not None:
                await _check_repository(repository)
            return await search_index(), await reranker()
    except TimeoutError as error:
        took = format_duration(parts.limit)
        raise RecallFailed(f"opening the index took longer than {took} (WORKER_RECALL_TIMEOUT)") from error


async def _candidates(
    index: SearchIndex, parts: _Parts, question: str, repository: str | None, enough: int
) -> list[Passage]:
    """The best hits of both searches, each once."""
    turns = await _turns()
    where: dict[str, Any] = {"limit": max(enough, _DEPTH), "repository": repository}

    async def by_vector() -> list[Ranked] | None:
        vectors = await parts.get("vectors", _embedded(question))
        if vectors is None:
            return None
        [vector] = vectors
        if not vector.any():  # the question has no meaning for the embedder
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
    """Limits concurrent searches to the number of cores: they compute, and more would slow each other and the loop."""
    yield asyncio.Semaphore(_SEARCHES_AT_ONCE)


async def _embedded(question: str) -> Vectors:
    return await (await embedder()).embed([question])


async def _reranked(
    model: Reranker, parts: _Parts, question: str, found: Sequence[Passage], limit: int
) -> list[Passage]:
    """The best hits, in the reranker's order; or in their present order if the reranker fails."""
    if len(found) < 2:  # noqa: PLR2004 - one hit needs no order
        return list(found)
    scores = await parts.get("reranker", model.rank(question, [f"{one.path}\n{one.text}" for one in found]))
    if scores is None:
        return list(found[:limit])
    ranked = [replace(passage, score=score) for passage, score in zip(found, scores, strict=True)]
    return sorted(ranked, key=lambda passage: -passage.score)[:limit]


async def _check_repository(name: str) -> None:
    if await (await repository_store()).get(name) is None:
        raise BadQuestion(f"no repository {shown(name)!r}: see `worker repositories list`")


async def _snippets(parts: _Parts, found: Sequence[Passage]) -> list[Snippet]:
    """The hits' text as the files have it now, or as indexed if a file cannot be read in time."""
    repositories = {passage.repository for passage in found if passage.kind == "code"}
    known = await parts.get("repositories", _folders(repositories)) if repositories else None
    to_read = [passage for passage in found if known and passage.repository in known]
    read = await _in_time(parts, known, to_read) if known and to_read else {}
    return [read.get(passage.id) or snippets.stored(passage) for passage in found]


async def _folders(repositories: Collection[str]) -> dict[str, Path]:
    return await (await repository_store()).folders(repositories)


async def _in_time(parts: _Parts, folders: Mapping[str, Path], found: Sequence[Passage]) -> dict[str, Snippet]:
    """The snippets that were read in time, by the passage's id."""
    read: dict[str, Snippet | OSError] = {}
    left = threading.Event()
    wanted = (passage for passage in found if not left.is_set())
    readers = await _readers()

    def ended(reading: asyncio.Future[None]) -> None:
        readers.release()
        if not reading.cancelled():
            reading.exception()  # marks it as seen: the caller may be gone

    try:
        async with asyncio.timeout(parts.limit.total_seconds()):
            await readers.acquire()
            # One call of the thread pool for all: each call would wait for a thread, and for the interpreter.
            reading = asyncio.ensure_future(run_in_thread_pool(snippets.read_each, folders, wanted, read))
            # It is not cancelled, because the cancelled task would end before its thread.
            reading.add_done_callback(ended)
            await asyncio.wait([reading])
            reading.result()
    except TimeoutError:
        late = len(found) - len(read)
        parts.leave_out("files", f"{late} took longer than {format_duration(parts.limit)}: shown as indexed")
    finally:
        left.set()
    outcomes = dict(read)
    failures = [one for one in outcomes.values() if isinstance(one, OSError)]
    if failures:
        parts.leave_out("files", f"{len(failures)} cannot be read: {failures[0]}: shown as indexed")
    return {key: one for key, one in outcomes.items() if isinstance(one, Snippet)}


@loop_resource
async def _readers() -> AsyncIterator[asyncio.Semaphore]:
    """Limits concurrent reads: a drive that hangs holds its threads, and most of the pool must stay free."""
    yield asyncio.Semaphore(max(1, Settings.in_force().thread_pool_size // 16))


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
