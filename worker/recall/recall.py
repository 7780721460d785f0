"""Answers a question with what the index holds: code, transcripts, summaries and notes.

The index is asked by vector and by word at once, the two rankings are fused, a reranker may order them anew, and
snippets are read from the files. It must never fail or wait because one of these parts does: the answer goes without
it, and says so.
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
from worker.ground.texts import shown
from worker.loops.loop_resources import loop_resource
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.embedder import Vectors, embedder
from worker.models.reranker import Reranker, reranker
from worker.recall import snippets
from worker.recall.fusing import fuse
from worker.recall.snippets import Snippet
from worker.settings import settings_in_force
from worker.stores.chunks import Kind, Passage, Ranked
from worker.stores.index import SearchIndex, search_index
from worker.stores.lance import load_lancedb
from worker.stores.repositories import repository_store

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


class BadQuestion(ConfigurationError):
    """The question is blank, or the limit unfit, or there is no such repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Something that was found.

    Attributes:
        repository: Empty for what is in none.
        path: The file's within its repository; else the conversation's id, or the note's.
        score: Higher is better; only within one answer comparable.
        changed: Whether the file is another than the one that was indexed; `None` of what is in no file, or if it
            cannot be told.
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
        except IndexMismatch:  # an answer of words alone would hide for ever that the index must be made anew
            raise
        except (WorkerError, OSError, RuntimeError, ValueError) as error:
            self.leave_out(part, str(error) or type(error).__name__)
        return None

    def leave_out(self, part: str, reason: str) -> None:
        logger.warning("an answer goes without a part", part=part, reason=reason)
        self.left_out.append(LeftOut(part, reason))


def check_question(question: str, limit: int) -> None:
    """Refuses what no index could answer.

    Raises:
        BadQuestion: The question is blank, or the limit unfit.
    """
    if not question.strip():
        raise BadQuestion("the question is blank: ask for something")
    if not 1 <= limit <= MOST_HITS:
        raise BadQuestion(f"the limit is {limit}: ask for 1 to {MOST_HITS} hits")


async def recall(question: str, *, repository: str | None = None, limit: int = 10) -> Answer:
    """Finds what answers a question.

    Args:
        question: Words of any language, a name, a line of code; nothing in it is syntax.
        repository: Only there; `None`: everywhere, in conversations and notes too.
        limit: The most hits, from 1 to `MOST_HITS`.

    Raises:
        BadQuestion: It is blank, the limit unfit, or there is no such repository.
        IndexMismatch: The index was made by another embedder.
        ConfigurationError: The index or the database cannot be opened.
        RecallFailed: It could be asked neither by vector nor by word, or not be opened in time.
    """
    check_question(question, limit)
    parts = _Parts(settings_in_force().recall_timeout, [])
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
    """The index could be asked neither by vector nor by word, or not read; retried where a message asked."""


async def _opened(parts: _Parts, repository: str | None) -> tuple[SearchIndex, Reranker | None]:
    """What no answer goes without."""
    await run_in_thread_pool(load_lancedb)  # a machine that is slow to load it is no index that does not answer
    try:
        async with asyncio.timeout(parts.limit.total_seconds()):
            if repository is not None:
                await _check_repository(repository)
            return await search_index(), await reranker()
    except TimeoutError as error:
        took = format_duration(parts.limit)
        raise RecallFailed(f"to open the index took longer than {took} (WORKER_RECALL_TIMEOUT)") from error


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
        raise BadQuestion(f"no repository {shown(name)!r}: `worker repositories list` shows those there are")


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
    read: dict[str, Snippet | OSError] = {}
    left = threading.Event()
    wanted = (passage for passage in found if not left.is_set())
    readers = await _readers()

    def ended(reading: asyncio.Future[None]) -> None:
        readers.release()
        if not reading.cancelled():
            reading.exception()  # whoever waited for it may be gone

    try:
        async with asyncio.timeout(parts.limit.total_seconds()):
            await readers.acquire()
            # One call of the pool for all of them: each would have to wait for a thread, and for the interpreter.
            reading = asyncio.ensure_future(run_in_thread_pool(snippets.read_each, folders, wanted, read))
            # It is not cancelled: that would end before its thread does.
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
    """A drive that hangs keeps the threads that read from it: most of the pool is for others."""
    yield asyncio.Semaphore(max(1, settings_in_force().thread_pool_size // 16))


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
