"""The search index in real LanceDB tables, in folders of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
import pytest

from tests.support.searching import found_by_text, found_by_vector
from worker.bridge import run_async_in_new_loop
from worker.errors import ConfigurationError, Fatal, IndexMismatch
from worker.models.embedder import Vectors
from worker.models.failures import ModelUnavailable
from worker.settings import Settings
from worker.stores.chunks import Document, DocumentKind, FileChunks, FileState, NewChunk, Totals, hash_of
from worker.stores.index import SearchIndex
from worker.stores.rebuilding import rebuild
from worker.stores.settings import StoreSettings

T = TypeVar("T")

DIMENSIONS = 8
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOSTILE = ["it's", '"', "a' OR 1=1 --", "x; DROP TABLE chunks", "\\", "%", "a\nb", "a\tb", "日本", "'''", "$1", "`"]


def ask(settings: Settings, question: Callable[[SearchIndex], Awaitable[T]], embedder: str = "made up") -> T:
    """What the index says, opened for this one question."""

    async def asked() -> T:
        async with SearchIndex.open(StoreSettings.in_force().index_dir, embedder, DIMENSIONS) as index:
            return await question(index)

    return run_async_in_new_loop(asked)


def vector(number: int) -> Vectors:
    """A vector that is near to that of no other small number."""
    made = np.zeros(DIMENSIONS, np.float32)
    made[number % DIMENSIONS] = 1
    return made


def chunks_of(texts: Sequence[str]) -> list[NewChunk]:
    """A chunk of a line for each."""
    return [NewChunk(text=text, start_line=n + 1, end_line=n + 1, symbol=f"symbol{n}") for n, text in enumerate(texts)]


def vectors_of(texts: Sequence[str]) -> Vectors:
    return np.array([vector(number) for number in range(len(texts))], np.float32).reshape(len(texts), DIMENSIONS)


def file(path: str, *texts: str) -> FileChunks:
    """A file with a chunk for each text."""
    content = "\n".join(texts).encode("utf-8", "replace")
    return FileChunks(
        path=path,
        language="python",
        hash=hash_of(content),
        size=len(content),
        changed_ns=1,
        chunks=chunks_of(texts),
        vectors=vectors_of(texts),
    )


def document(kind: DocumentKind, name: str, *texts: str) -> Document:
    return Document(kind=kind, name=name, created=NOON, chunks=chunks_of(texts), vectors=vectors_of(texts))


def fill(settings: Settings, repository: str, *files: FileChunks) -> None:
    ask(settings, lambda index: index.replace_files(repository, files))


def by_words(settings: Settings, text: str, repository: str | None = None) -> list[str]:
    """The paths of what is found by these words, the best first."""
    found = ask(settings, lambda index: found_by_text(index, text, limit=10, repository=repository))
    return [passage.path for passage in found]


def texts_of(settings: Settings, path: str) -> list[str]:
    """What is stored of a file or document, in the order of its lines."""

    async def everything(index: SearchIndex) -> Iterable[tuple[int, str]]:
        found = await found_by_vector(index, np.ones(DIMENSIONS, np.float32), limit=1000)
        return [(passage.start_line, passage.text) for passage in found if passage.path == path]

    return [text for _, text in sorted(ask(settings, everything))]


def test_a_file_is_found_by_its_words_and_by_its_vector(settings: Settings) -> None:
    """Each hit bears what is needed to show it."""
    fill(settings, "1", file("a.py", "def first(): pass", "def second(): pass"), file("b.py", "class Other: ..."))
    by_word = ask(settings, lambda index: found_by_text(index, "what does second do", limit=1))
    by_vector = ask(settings, lambda index: found_by_vector(index, vector(1), limit=1))
    for [found] in (by_word, by_vector):
        assert (found.kind, found.repository, found.path, found.language) == ("code", "1", "a.py", "python")
        assert (found.start_line, found.end_line, found.symbol) == (2, 2, "symbol1")
        assert (found.text, found.file_hash) == (
            "def second(): pass",
            hash_of(b"def first(): pass\ndef second(): pass"),
        )
    assert by_vector[0].score == pytest.approx(1)


@pytest.mark.parametrize(
    "question",
    ["parse_http_reply", "parseHTTPReply", "http reply", "PARSE", "how do we parse a reply?"],
)
def test_a_name_is_found_by_itself_and_by_its_parts(settings: Settings, question: str) -> None:
    """However it is written: in snake case, in camel case, in a sentence."""
    fill(settings, "1", file("snake.py", "def parse_http_reply(): ..."), file("camel.ts", "function parseHTTPReply()"))
    assert set(by_words(settings, question)) == {"snake.py", "camel.ts"}


def test_words_of_scripts_without_spaces_are_found(settings: Settings) -> None:
    """By pairs of their characters."""
    fill(settings, "1", file("a", "東京都に住んでいる"), file("b", "京都に住んでいる大阪人"))
    assert by_words(settings, "東京")[0] == "a"
    assert by_words(settings, "大阪") == ["b"]


def test_replacing_files_is_one_commit_and_leaves_nothing_of_what_was(settings: Settings) -> None:
    """Fewer chunks, more chunks and none: what is stored is what was given last."""
    fill(settings, "1", file("a.py", "one", "two", "three"), file("b.py", "four"), file("c.py", "five"))

    async def replace(index: SearchIndex) -> int:
        before = await index._table.version()
        await index.replace_files("1", [file("a.py", "1"), file("b.py", "2", "3"), file("c.py"), file("d.py", "4")])
        return await index._table.version() - before

    assert ask(settings, replace) == 1
    assert [texts_of(settings, f"{name}.py") for name in "abcd"] == [["1"], ["2", "3"], [], ["4"]]
    states = ask(settings, lambda index: index.files_of("1"))
    assert {path: state.chunks for path, state in states.items()} == {"a.py": 1, "b.py": 2, "c.py": 0, "d.py": 1}


def test_what_is_stored_of_files_is_told_for_each(settings: Settings) -> None:
    """Files without chunks too, and those of no other repository."""
    files = [file("a.py", "one"), file("empty.py")]
    fill(settings, "1", *files)
    fill(settings, "2", file("a.py", "other", "others"))
    stored = ask(settings, lambda index: index.files_of("1"))
    assert stored == {one.path: FileState(one.hash, one.size, 1, len(one.chunks)) for one in files}
    assert ask(settings, lambda index: index.totals("1")) == Totals(files=2, chunks=1, bytes=3)
    assert ask(settings, lambda index: index.totals("2")) == Totals(files=1, chunks=2, bytes=12)
    assert ask(settings, lambda index: index.totals("3")) == Totals(files=0, chunks=0, bytes=0)


def test_a_touched_file_keeps_its_chunks(settings: Settings) -> None:
    """Only its size and time are written."""
    fill(settings, "1", file("a.py", "one"), file("b.py", "two"))
    touched = FileState(hash_of(b"one"), 3, 99, 1)
    ask(settings, lambda index: index.touch_files("1", {"a.py": touched}))
    states = ask(settings, lambda index: index.files_of("1"))
    assert (states["a.py"], states["b.py"].changed_ns) == (touched, 1)
    assert by_words(settings, "one") == ["a.py"]


def test_what_is_removed_is_gone(settings: Settings) -> None:
    """A file, a repository, a document: those alone."""
    for repository in ("1", "2"):
        fill(settings, repository, file("a.py", "common"), file("b.py", "common"))
    ask(settings, lambda index: index.replace_documents([document("note", "n", "common"), document("note", "m", "x")]))
    ask(settings, lambda index: index.remove_files("1", ["a.py", "never.py"]))
    assert set(ask(settings, lambda index: index.files_of("1"))) == {"b.py"}
    ask(settings, lambda index: index.remove_repository("2"))
    ask(settings, lambda index: index.remove_documents("note", ["n"]))
    assert by_words(settings, "common") == ["b.py"]


def test_a_document_replaces_the_one_of_its_kind_and_name(settings: Settings) -> None:
    """A summary does not replace the transcript of the same conversation."""
    both = [document("transcript", "c", "said one", "said two"), document("summary", "c", "sum")]
    ask(settings, lambda index: index.replace_documents(both))
    ask(settings, lambda index: index.replace_documents([document("transcript", "c", "said three")]))
    found = ask(settings, lambda index: found_by_text(index, "said sum", limit=10))
    assert sorted((passage.kind, passage.text, passage.created) for passage in found) == [
        ("summary", "sum", NOON),
        ("transcript", "said three", NOON),
    ]


def test_a_search_is_confined_to_a_repository_and_to_kinds(settings: Settings) -> None:
    """By vector and by word alike."""
    fill(settings, "1", file("a.py", "common"))
    fill(settings, "2", file("a.py", "common"))
    ask(settings, lambda index: index.replace_documents([document("note", "n", "common")]))

    async def found(index: SearchIndex) -> list[set[tuple[str, str]]]:
        answers = [
            await found_by_text(index, "common", limit=10, repository="1"),
            await found_by_vector(index, vector(0), limit=10, repository="1"),
            await found_by_text(index, "common", limit=10, kinds=["note"]),
            await found_by_vector(index, vector(0), limit=10, kinds=["note"]),
        ]
        return [{(passage.kind, passage.repository) for passage in answer} for answer in answers]

    assert ask(settings, found) == [{("code", "1")}] * 2 + [{("note", "")}] * 2


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_name_is_taken_for_a_filter(settings: Settings, hostile: str) -> None:
    """Quotes and SQL in repositories, paths and documents are only names."""
    fill(settings, hostile, file(hostile, "mine"), file("other", "mine"))
    fill(settings, "1", file("a.py", "theirs"))
    ask(
        settings,
        lambda index: index.replace_documents([document("note", hostile, "noted"), document("note", "n", "n")]),
    )
    fill(settings, hostile, file(hostile, "changed"))
    assert set(by_words(settings, "mine changed", hostile)) == {"other", hostile}
    assert set(ask(settings, lambda index: index.files_of(hostile))) == {hostile, "other"}
    ask(settings, lambda index: index.remove_files(hostile, [hostile]))
    ask(settings, lambda index: index.remove_documents("note", [hostile]))
    assert set(ask(settings, lambda index: index.files_of(hostile))) == {"other"}
    ask(settings, lambda index: index.remove_repository(hostile))
    assert ask(settings, lambda index: index.totals("1")).files == 1
    assert by_words(settings, "noted") == []
    assert by_words(settings, "n") == ["n"]


@pytest.mark.parametrize(
    "question",
    ['"', "a AND", "(((", "* ?", "text:a", "a^b~2", "-a +b", '"a b', "{}", "\\", "\0", "\ud800", "", "  ", "NOT", "é"],
)
def test_a_question_has_no_syntax(settings: Settings, question: str) -> None:
    """It finds what has its words, or nothing, and never fails."""
    fill(settings, "1", file("a.py", "a and b"), file("other.rs", "c"))
    assert set(by_words(settings, question)) <= {"a.py"}


def test_text_that_is_no_text_can_be_stored(settings: Settings) -> None:
    """NULs, and halves of characters."""
    fill(settings, "1", file("a.py", "nul\0here half\ud800here"))
    assert by_words(settings, "nul") == ["a.py"]


def test_another_embedder_is_told_to_make_the_index_anew(settings: Settings) -> None:
    """Its vectors are not mixed with the others', also if it comes while the index is open."""
    fill(settings, "1", file("a.py", "one"))
    with pytest.raises(IndexMismatch, match=r"was made by made up \(8 dimensions\), and another .* `worker index"):
        ask(settings, lambda index: index.totals("1"), embedder="another")


def test_an_index_with_nothing_in_it_is_anybodys(settings: Settings) -> None:
    """Who only looked, or has removed everything, may change the embedder."""
    ask(settings, lambda index: index.totals("1"))
    assert ask(settings, lambda index: index.totals("1"), embedder="another") == Totals(0, 0, 0)


class OtherEmbedder:
    """Has vectors of another length, all the same."""

    name = "another"
    dimensions = 3

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return np.ones((len(texts), self.dimensions), np.float32)


def test_an_index_made_anew_holds_the_same_for_another_embedder(settings: Settings) -> None:
    """Files, documents, words and states stay; the old embedder is told, also where it has the index open."""
    fill(settings, "1", file("a.py", "one", "two"), file("empty.py"))
    ask(settings, lambda index: index.replace_documents([document("note", "n", "a note")]))
    states = ask(settings, lambda index: index.files_of("1"))
    steps: list[tuple[int, int]] = []

    async def rebuild_meanwhile(index: SearchIndex) -> None:
        assert await rebuild(StoreSettings.in_force().index_dir, OtherEmbedder(), lambda *step: steps.append(step)) == 3
        with pytest.raises(IndexMismatch):
            await found_by_vector(index, vector(0), limit=1)
        with pytest.raises(IndexMismatch):
            await index.replace_files("1", [file("a.py")])

    ask(settings, rebuild_meanwhile)
    assert steps[-1][0] == 3

    async def look() -> list[object]:
        async with SearchIndex.open(
            StoreSettings.in_force().index_dir, OtherEmbedder.name, OtherEmbedder.dimensions
        ) as index:
            by_word = await found_by_text(index, "two", limit=9)
            by_vector = await found_by_vector(index, np.ones(3, np.float32), limit=9)
            return [await index.files_of("1"), [one.text for one in by_word], sorted(one.text for one in by_vector)]

    assert run_async_in_new_loop(look) == [states, ["two"], ["a note", "one", "two"]]
    with pytest.raises(IndexMismatch):
        ask(settings, lambda index: index.totals("1"))


def test_a_chunk_that_the_new_embedder_refuses_is_still_found_by_its_words(settings: Settings) -> None:
    """It costs only its vector."""
    fill(settings, "1", file("a.py", "one", "two"))

    class Choosy(OtherEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            if any("two" in text for text in texts):
                raise Fatal("too long")
            return await super().embed(texts)

    assert run_async_in_new_loop(rebuild(StoreSettings.in_force().index_dir, Choosy())) == 2

    async def look() -> list[list[str]]:
        async with SearchIndex.open(
            StoreSettings.in_force().index_dir, OtherEmbedder.name, OtherEmbedder.dimensions
        ) as index:
            by_word = await found_by_text(index, "two", limit=9)
            by_vector = await found_by_vector(index, np.ones(3, np.float32), limit=9)
            return [[one.text for one in by_word], [one.text for one in by_vector]]

    assert run_async_in_new_loop(look) == [["two"], ["one"]]


def test_an_index_whose_making_anew_fails_is_what_it_was(settings: Settings) -> None:
    """And can be made anew later."""
    fill(settings, "1", file("a.py", "one"))

    class Failing(OtherEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            raise ModelUnavailable("not now")

    with pytest.raises(ModelUnavailable):
        run_async_in_new_loop(rebuild(StoreSettings.in_force().index_dir, Failing()))
    assert by_words(settings, "one") == ["a.py"]
    assert run_async_in_new_loop(rebuild(StoreSettings.in_force().index_dir, OtherEmbedder())) == 1


def test_vectors_of_another_shape_are_refused(settings: Settings) -> None:
    """Before anything is written."""
    wrong = FileChunks(
        path="a", language=None, hash="", size=0, changed_ns=0, chunks=chunks_of(["x"]), vectors=np.zeros((1, 3), "f4")
    )
    with pytest.raises(ValueError, match="a has 1 chunks and vectors of shape"):
        fill(settings, "1", wrong)
    assert ask(settings, lambda index: index.totals("1")) == Totals(0, 0, 0)


def test_a_folder_that_cannot_be_made_is_one_line(settings: Settings) -> None:
    """It names the setting."""
    settings.data_dir.mkdir(parents=True)
    StoreSettings.in_force().index_dir.write_text("a file")
    with pytest.raises(ConfigurationError, match="^WORKER_INDEX_DIR=") as raised:
        ask(settings, lambda index: index.totals("1"))
    assert "\n" not in str(raised.value)


def test_optimizing_changes_no_answer(settings: Settings) -> None:
    """What is indexed and what is not yet are found alike."""
    for number in range(5):
        fill(settings, "1", file(f"{number}.py", f"common {'abcde'[number]}"))
    before = sorted(by_words(settings, "common"))
    ask(settings, lambda index: index.optimize())
    fill(settings, "1", file("5.py", "common f"), file("0.py", "changed"))
    assert sorted(by_words(settings, "common")) == [*before[1:], "5.py"]
    assert by_words(settings, "a") == []
