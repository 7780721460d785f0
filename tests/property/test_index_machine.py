"""Any order of writes by two that have the search index open: it holds, and finds, what a plain dict of it would."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.examples import examples
from tests.support.searching import found_by_text, found_by_vector
from worker.models.embedder import Vectors
from worker.models.words import words_of
from worker.stores import upkeep
from worker.stores.chunks import Document, DocumentKind, FileChunks, FileState, Kind, NewChunk, Passage, Totals
from worker.stores.index import SearchIndex
from worker.stores.layout import searched_of

T = TypeVar("T")
Row = tuple[str, str, str, int, str]
"""Of a chunk: kind, repository, path, line and text."""

DIMENSIONS = 4
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
EVERYTHING = 10_000

NAMES = ["a.py", "it's", "x' OR 1=1 --", 'a\n"b"\\', "%", "日本", "nul\0"]
TEXTS = ["one", "two parse_http", "parseHTTP' OR ''='", "", "\0", "half \ud800", "日本 one", "kind = 'code'", "AND ((*"]
WORDS = ["one", "parse", "日本", "code", "OR", "half", "a.py", "nothing like it"]

repositories = st.sampled_from(["1", "it's", "1' OR '1'='1"])
names = st.sampled_from(NAMES)
contents = st.lists(st.sampled_from(TEXTS), max_size=4)
kinds = st.sampled_from(get_args(DocumentKind))


def vector_of(text: str) -> Vectors:
    """The same for the same text, of length 1."""
    made = np.zeros(DIMENSIONS, np.float32)
    made[TEXTS.index(text) % DIMENSIONS] = 1 if TEXTS.index(text) < DIMENSIONS else -1
    return made


def vectors_of(texts: Sequence[str]) -> Vectors:
    return np.array([vector_of(text) for text in texts], np.float32).reshape(len(texts), DIMENSIONS)


def chunks_of(texts: Sequence[str]) -> list[NewChunk]:
    return [NewChunk(text=text, start_line=line, end_line=line) for line, text in enumerate(texts, start=1)]


def rows_of(kind: str, repository: str, path: str, texts: Sequence[str]) -> Iterator[Row]:
    for line, text in enumerate(texts, start=1):
        yield kind, repository, path, line, text.encode("utf-8", "replace").decode()


def row_of(found: Passage) -> Row:
    return found.kind, found.repository, found.path, found.start_line, found.text


class Indexes(RuleBasedStateMachine):
    """An index that is open twice, as in two processes, and what it must hold."""

    worth_an_index = upkeep._WORTH_AN_INDEX

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="index-machine-"))
        self.runner = asyncio.Runner()
        self.patched = patch.object(upkeep, "_WORTH_AN_INDEX", self.worth_an_index)
        self.patched.start()
        self.opened = [self.open() for _ in range(2)]
        self.files: dict[tuple[str, str], tuple[FileState, Sequence[str]]] = {}
        self.documents: dict[tuple[DocumentKind, str], Sequence[str]] = {}

    def open(self) -> tuple[contextlib.AsyncExitStack, SearchIndex]:
        async def opened() -> tuple[contextlib.AsyncExitStack, SearchIndex]:
            stack = contextlib.AsyncExitStack()
            return stack, await stack.enter_async_context(SearchIndex.open(self.folder, "made up", DIMENSIONS))

        return self.runner.run(opened())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self.opened.reverse()  # each has its turn
        return self.runner.run(coroutine)

    @property
    def index(self) -> SearchIndex:
        return self.opened[0][1]

    @rule(repository=repositories, given=st.dictionaries(names, contents, max_size=4), size=st.integers(0, 9))
    def replace_files(self, repository: str, given: Mapping[str, Sequence[str]], size: int) -> None:
        files = []
        for path, texts in given.items():
            left_out = None if texts else "empty"
            state = FileState(f"hash of {texts!a}", size, size, len(texts), left_out)
            self.files[repository, path] = state, texts
            files.append(
                FileChunks(
                    path=path,
                    language=None,
                    hash=state.hash,
                    size=size,
                    changed_ns=size,
                    chunks=chunks_of(texts),
                    vectors=vectors_of(texts),
                    left_out=left_out,
                )
            )
        self.run(self.index.replace_files(repository, files))

    @rule(repository=repositories, paths=st.sets(names), size=st.integers(10, 19))
    def touch_files(self, repository: str, paths: Collection[str], size: int) -> None:
        touched = {path: FileState("", size, size, 0) for path in paths}
        for path in paths:
            if (repository, path) in self.files:
                state, texts = self.files[repository, path]
                self.files[repository, path] = FileState(state.hash, size, size, state.chunks, state.left_out), texts
        self.run(self.index.touch_files(repository, touched))

    @rule(repository=repositories, paths=st.sets(names))
    def remove_files(self, repository: str, paths: Collection[str]) -> None:
        for path in paths:
            self.files.pop((repository, path), None)
        self.run(self.index.remove_files(repository, paths))

    @rule(repository=repositories)
    def remove_repository(self, repository: str) -> None:
        self.files = {key: held for key, held in self.files.items() if key[0] != repository}
        self.run(self.index.remove_repository(repository))

    @rule(given=st.dictionaries(st.tuples(kinds, names), contents, max_size=4))
    def replace_documents(self, given: Mapping[tuple[DocumentKind, str], Sequence[str]]) -> None:
        self.documents |= given
        documents = [
            Document(kind=kind, name=name, created=NOON, chunks=chunks_of(texts), vectors=vectors_of(texts))
            for (kind, name), texts in given.items()
        ]
        self.run(self.index.replace_documents(documents))

    @rule(kind=kinds, given=st.sets(names))
    def remove_documents(self, kind: DocumentKind, given: Collection[str]) -> None:
        for name in given:
            self.documents.pop((kind, name), None)
        self.run(self.index.remove_documents(kind, given))

    @rule()
    def optimize(self) -> None:
        assert self.run(self.index.optimize())

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.opened.pop()[0].aclose())
        self.opened.append(self.open())

    def held(self, repository: str | None, wanted: Collection[Kind]) -> list[Row]:
        """The chunks that a search with these filters may find."""
        rows = [row for (where, path), (_, texts) in self.files.items() for row in rows_of("code", where, path, texts)]
        rows += [row for (kind, name), texts in self.documents.items() for row in rows_of(kind, "", name, texts)]
        return sorted(row for row in rows if repository in (None, row[1]) and (not wanted or row[0] in wanted))

    @rule(word=st.sampled_from(WORDS), where=st.none() | repositories, wanted=st.sets(st.sampled_from(get_args(Kind))))
    def search_by_text(self, word: str, where: str | None, wanted: Collection[Kind]) -> None:
        asked = set(words_of(word))
        found = self.run(found_by_text(self.index, word, limit=EVERYTHING, repository=where, kinds=wanted))
        matching = [
            row for row in self.held(where, wanted) if asked & set(words_of(searched_of(row[0], row[2], None, row[4])))
        ]
        assert sorted(map(row_of, found)) == matching

    @rule(text=st.sampled_from(TEXTS), where=st.none() | repositories, wanted=st.sets(st.sampled_from(get_args(Kind))))
    def search_by_vector(self, text: str, where: str | None, wanted: Collection[Kind]) -> None:
        vector = vector_of(text)
        found = self.run(found_by_vector(self.index, vector, limit=EVERYTHING, repository=where, kinds=wanted))
        held = self.held(where, wanted)
        assert sorted(map(row_of, found)) == held
        nearest = [row for row in held if self.is_near(row[4], vector)]
        assert sorted(map(row_of, found[: len(nearest)])) == nearest
        assert [one.score for one in found[: len(nearest)]] == pytest.approx([1] * len(nearest), abs=0.01)

    def is_near(self, stored: str, vector: Vectors) -> bool:
        [text] = [text for text in TEXTS if text.encode("utf-8", "replace").decode() == stored]
        return bool(vector_of(text) @ vector > 0)

    @invariant()
    def it_holds_what_was_given_last(self) -> None:
        for repository in {key[0] for key in self.files} | {"1"}:
            states = {path: held[0] for (where, path), held in self.files.items() if where == repository}
            assert self.run(self.index.files_of(repository)) == states
            whole = [state for state in states.values() if state.left_out is None]
            left_out = {"empty": len(states) - len(whole)} if len(whole) < len(states) else {}
            totals = Totals(len(whole), sum(one.chunks for one in whole), sum(one.size for one in whole), left_out)
            assert self.run(self.index.totals(repository)) == totals

    def teardown(self) -> None:
        self.search_by_text("one", None, ())
        self.search_by_vector("one", None, ())
        for stack, _ in self.opened:
            self.runner.run(stack.aclose())
        self.runner.close()
        self.patched.stop()
        shutil.rmtree(self.folder)


class IndexesOfVectors(Indexes):
    """The same, with vectors in an index of their own as soon as it is optimized."""

    worth_an_index = 1


FEW = settings(max_examples=examples(10), stateful_step_count=16, suppress_health_check=list(HealthCheck))
TestIndexes = Indexes.TestCase
TestIndexes.settings = FEW
TestIndexesOfVectors = IndexesOfVectors.TestCase
TestIndexesOfVectors.settings = FEW
