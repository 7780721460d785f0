"""Measures the quality and the speed of recall: the share of questions that find their function, and the time.

The questions are first sentences of docstrings of Python's standard library; the indexed files do not have the
docstrings. A hit counts if it shows lines of the function. The searches are by vector alone, by word alone, and by
both, fused.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import platform
import random
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker import run_async_in_new_loop
from worker.models.embedder import Vectors, embedder
from worker.recall.chunking import cut
from worker.recall.fusing import fuse
from worker.recall.recall import recall
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.chunks import FileChunks, NewChunk, Passage, Ranked, hash_of, searched
from worker.stores.index import SearchIndex, search_index

PACKAGES = [
    "asyncio",
    "collections",
    "concurrent",
    "email",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
]
PACKAGES += ["sqlite3", "unittest", "urllib", "wsgiref", "xml", "xmlrpc", "zoneinfo", "*.py"]
LONGEST_FILE = 500_000
FEWEST_WORDS = 5
DEPTH = 100
CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Question:
    """The first sentence of a docstring, and the lines of its function."""

    text: str
    path: str
    first: int
    last: int

    def is_answered_by(self, passage: Passage) -> bool:
        """Whether the passage shows lines of the function."""
        return passage.path == self.path and passage.start_line <= self.last and passage.end_line >= self.first


def sources(top: Path) -> Iterator[tuple[str, str]]:
    """The files of the standard library that are indexed, by path."""
    for package in PACKAGES:
        for file in sorted(top.glob(package if package.endswith(".py") else f"{package}/**/*.py")):
            path = file.relative_to(top).as_posix()
            if "test" not in path and file.stat().st_size <= LONGEST_FILE:
                yield path, file.read_text(encoding="utf-8", errors="replace")


def without_docstrings(path: str, text: str) -> tuple[str, list[Question]]:
    """The text with blank lines for its docstrings, and the questions made from them."""
    lines = text.split("\n")
    questions = []
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, kinds) or ast.get_docstring(node) is None:
            continue
        said = node.body[0]
        for number in range(said.lineno - 1, said.end_lineno or said.lineno):
            lines[number] = ""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1:
            sentence = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()).partition(". ")[0]
            # A question must not name its function.
            if len(sentence.split()) >= FEWEST_WORDS and node.name.lower() not in sentence.lower():
                questions.append(Question(sentence, path, node.lineno, node.end_lineno or node.lineno))
    return "\n".join(lines), questions


async def index_all(index: SearchIndex) -> tuple[list[Question], int, float]:
    """Indexes the library; returns the questions, the number of chunks, and the seconds."""
    questions: list[Question] = []
    files, count = [], 0
    began = time.perf_counter()
    model = await embedder()
    for path, original in sources(Path(sysconfig.get_path("stdlib"))):
        text, found = without_docstrings(path, original)
        questions += found
        pieces = cut(text, "python")
        chunks = [
            NewChunk(text=text[p.start : p.end], start_line=p.start_line, end_line=p.end_line, symbol=p.symbol)
            for p in pieces
        ]
        vectors = await model.embed([searched(path, chunk.symbol, chunk.text) for chunk in chunks])
        content = text.encode("utf-8", "replace")
        files.append(
            FileChunks(
                path=path,
                language="python",
                hash=hash_of(content),
                size=len(content),
                changed_ns=0,
                chunks=chunks,
                vectors=vectors,
            )
        )
        count += len(chunks)
    await index.replace_files("stdlib", files)
    await index.optimize()
    return questions, count, time.perf_counter() - began


Search = Callable[[Question], Awaitable[Sequence[Passage]]]


def searches(index: SearchIndex) -> dict[str, Search]:
    """The three ways to search."""

    async def vector_of(question: Question) -> Vectors:
        [vector] = await (await embedder()).embed([question.text])
        return vector

    async def by_vector(question: Question) -> Sequence[Passage]:
        return await index.passages(await index.search_vector(await vector_of(question), limit=DEPTH))

    async def by_word(question: Question) -> Sequence[Passage]:
        return await index.passages(await index.search_text(question.text, limit=DEPTH))

    async def by_both(question: Question) -> Sequence[Passage]:
        rankings = await asyncio.gather(
            index.search_vector(await vector_of(question), limit=DEPTH), index.search_text(question.text, limit=DEPTH)
        )
        fused = fuse([[one.id for one in ranking] for ranking in rankings])
        return await index.passages([Ranked(*one) for one in fused])

    return {"by vector": by_vector, "by word": by_word, "by both": by_both}


async def quality(index: SearchIndex, questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """The shares of questions that find their function at the first place, and among the first ten."""
    found = {}
    for name, search in searches(index).items():
        places = []
        for question in questions:
            hits = await search(question)
            places.append(next((place for place, hit in enumerate(hits) if question.is_answered_by(hit)), DEPTH))
        shares = {f"in the first {most}": float(np.mean([place < most for place in places])) for most in (1, 10)}
        found[name] = shares | {
            "mean reciprocal rank": float(np.mean([1 / (place + 1) if place < DEPTH else 0 for place in places]))
        }
    return found


async def latencies(questions: Sequence[Question], clients: int) -> dict[str, float]:
    """The milliseconds of an answer, with this many clients that ask one question after another."""
    took: list[float] = []
    waiting = iter(questions)

    async def client() -> None:
        for question in waiting:
            began = time.perf_counter()
            answer = await recall(question.text)
            took.append(1000 * (time.perf_counter() - began))
            assert not answer.left_out, answer.left_out

    await recall("warm")
    await asyncio.gather(*(client() for _ in range(clients)))
    return {"p50": float(np.percentile(took, 50)), "p99": float(np.percentile(took, 99))}


async def measure(count: int, seed: int) -> dict[str, object]:
    """All figures."""
    index = await search_index()
    questions, chunks, seconds = await index_all(index)
    chosen = random.Random(seed).sample(questions, min(count, len(questions)))
    return {
        "python": platform.python_version(),
        "chunks": chunks,
        "chunks per second": chunks / seconds,
        "questions": len(chosen),
        "quality": await quality(index, chosen),
        "milliseconds": {f"{clients} at once": await latencies(chosen, clients) for clients in (1, CLIENTS)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        put_in_force(Settings(data_dir=Path(folder), blocking="off"))
        figures = run_async_in_new_loop(measure(options.questions, options.seed))
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
