"""Recall: the real index and the embedded embedder, files in folders, and a reranker behind a local HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.support.model_endpoint import Answer as EndpointAnswer
from tests.support.model_endpoint import ModelEndpoint, Request, as_json, fails, model_endpoint
from worker.bridge import run_async_in_new_loop, run_in_thread_pool
from worker.errors import ConfigurationError, IndexMismatch, NoContentFound
from worker.ground.json_values import to_json
from worker.models.embedder import embedder
from worker.models.settings import ModelSettings
from worker.recall import recall_batches, snippets
from worker.recall.chunking import cut
from worker.recall.indexing import LONGEST_NOTE, capture, index_conversation
from worker.recall.recall import (
    LONGEST_QUESTION,
    Answer,
    BadQuestion,
    Hit,
    LeftOut,
    RecallFailed,
    recall,
)
from worker.recall.recall_batches import recall_all
from worker.recall.settings import RecallSettings
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.chunks import FileChunks, NewChunk, Passage, hash_of, searched
from worker.stores.conversations import Chunk, conversation_store
from worker.stores.database import DatabaseFailed
from worker.stores.index import SearchIndex, search_index
from worker.stores.objects import object_store
from worker.stores.repositories import Repository, repository_store

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)

CODE = {
    "disk.py": "def read_config(path):\n    with open(path) as file:\n        return parse(file.read())\n",
    "web/client.py": "class HttpClient:\n    def fetch_url(self, url):\n        return self.session.get(url)\n",
    "math/matrix.rs": "fn multiply(a: &Matrix, b: &Matrix) -> Matrix {\n    a.rows().zip(b.columns())\n}\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of code."""
    for path, text in CODE.items():
        file = tmp_path / "code" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "code"


@pytest.fixture
def indexed(settings: Settings, folder: Path) -> Path:
    """The folder, indexed as repository 1."""

    async def add() -> None:
        await (await repository_store()).add(Repository(name="1", path=folder))
        await index_files("1", folder, *CODE)

    run_async_in_new_loop(add)
    return folder


async def index_files(repository: str, folder: Path, *paths: str) -> None:
    files = []
    for path in paths:
        content = (folder / path).read_bytes()
        text = content.decode()
        chunks = [
            NewChunk(text=text[p.start : p.end], start_line=p.start_line, end_line=p.end_line, symbol=p.symbol)
            for p in cut(text)
        ]
        vectors = await (await embedder()).embed([searched(path, chunk.symbol, chunk.text) for chunk in chunks])
        files.append(
            FileChunks(
                path=path,
                language=None,
                hash=hash_of(content),
                size=len(content),
                changed_ns=0,
                chunks=chunks,
                vectors=vectors,
            )
        )
    await (await search_index()).replace_files(repository, files)


def ask(question: str, **options: Any) -> Answer:
    return run_async_in_new_loop(recall(question, **options))


def first(question: str) -> Hit:
    return ask(question).hits[0]


def passages(question: str) -> list[Passage]:
    """What the index has of the words of a question."""

    async def search() -> list[Passage]:
        index = await search_index()
        return await index.passages(await index.search_text(question, limit=10))

    return run_async_in_new_loop(search)


def answered(*questions: str, **options: Any) -> list[dict[str, Any]]:
    """What is kept of a batch of questions."""

    async def answer() -> bytes:
        await recall_all(questions, "answers.jsonl", **options)
        return await (await object_store()).read("answers.jsonl")

    return [json.loads(line) for line in run_async_in_new_loop(answer).splitlines()]


def keep(conversation_id: str, transcript: str | None, summary: str | None = None) -> None:
    async def create() -> None:
        store = await conversation_store()
        await store.create(conversation_id, [Chunk(id=conversation_id, started_at=NOON, transcript=transcript)])
        if summary is not None:
            await store.save_summary(conversation_id, summary, "digest")

    run_async_in_new_loop(create)


@contextlib.contextmanager
def endpoint(answer: Callable[[Request], EndpointAnswer], **values: Any) -> Iterator[ModelEndpoint]:
    """An endpoint for embeddings and for reranking; the settings in force name it as far as `values` say."""
    with model_endpoint(otherwise=answer) as served:
        named: dict[str, Any] = {name: served.url if value is True else value for name, value in values.items()}
        put_in_force(ModelSettings(**named))
        yield served


def prefers(text: str) -> Callable[[Request], EndpointAnswer]:
    """A reranker to which what holds this text is the best."""

    def answer(request: Request) -> EndpointAnswer:
        documents = request.body["documents"]
        results = [{"index": n, "relevance_score": float(text in one)} for n, one in enumerate(documents)]
        return as_json({"results": results})

    return answer


@pytest.mark.parametrize(
    ("question", "path"),
    [
        ("load settings from a file", "disk.py"),
        ("read_config", "disk.py"),
        ("fetchUrl", "web/client.py"),
        ("how do I make an HTTP request?", "web/client.py"),
        ("product of two matrices", "math/matrix.rs"),
        ("matrix.rs", "math/matrix.rs"),
    ],
)
def test_a_question_finds_the_code_that_answers_it(indexed: Path, question: str, path: str) -> None:
    """By its meaning, by a name, or by the file's."""
    hit = first(question)
    assert (hit.kind, hit.repository, hit.path, hit.changed) == ("code", "1", path, False)
    assert (hit.start_line, hit.end_line) == (1, 3)
    assert hit.snippet == CODE[path].rstrip("\n")


def test_hits_are_in_the_order_of_their_scores_and_no_more_than_asked_for(indexed: Path) -> None:
    """Nothing is left out of a good answer."""
    answer = ask("read", limit=2)
    assert len(answer.hits) == 2
    assert answer.hits[0].score >= answer.hits[1].score > 0
    assert answer.left_out == ()
    assert answer.describe() == "2 hits"


def test_a_changed_file_is_told(indexed: Path) -> None:
    """A hit that moved is where it is now; one that is gone reads as it was indexed."""
    moved, gone = indexed / "disk.py", indexed / "web/client.py"
    moved.write_text("# one more line\n\n" + moved.read_text())
    gone.write_text("nothing of it is left\n")
    found = {hit.path: hit for hit in ask("read fetch multiply").hits}
    assert {path: hit.changed for path, hit in found.items()} == {
        "disk.py": True,
        "web/client.py": True,
        "math/matrix.rs": False,
    }
    assert (found["disk.py"].start_line, found["disk.py"].snippet) == (3, CODE["disk.py"])
    assert found["web/client.py"].snippet == CODE["web/client.py"]


def test_a_file_of_the_same_size_and_time_with_other_content_has_changed(indexed: Path) -> None:
    """What counts is the content."""
    file = indexed / "disk.py"
    before = file.stat()
    file.write_text(CODE["disk.py"].replace("parse", "PARSE"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first("read_config").changed is True


def test_a_file_that_is_another_one_now_reads_as_it_was_indexed(indexed: Path, tmp_path: Path) -> None:
    """Removed, made a folder, a pipe, a socket, a link to itself or out of the repository, or too large."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file = indexed / "disk.py"

    def folder_there() -> None:
        file.mkdir()

    def large() -> None:
        with file.open("wb") as opened:
            opened.truncate(2**30)

    makers: list[Callable[[], None]] = [
        folder_there,
        lambda: os.mkfifo(file),
        lambda: os.mknod(file, stat.S_IFSOCK | 0o600),
        lambda: file.symlink_to(file),
        lambda: file.symlink_to(secret),
        large,
    ]
    for make in (lambda: None, *makers):
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink(missing_ok=True)
        make()
        hit = first("read_config")
        assert (hit.path, hit.snippet, hit.changed) == ("disk.py", CODE["disk.py"], True)


def test_a_file_whose_folder_was_removed_has_changed(indexed: Path) -> None:
    """Or where a file is in the folder's place."""
    shutil.rmtree(indexed / "web")
    assert first("fetch_url").changed is True
    (indexed / "web").write_text("no folder")
    assert first("fetch_url").changed is True


@pytest.mark.parametrize("there", [False, True], ids=["nothing", "file"])
def test_where_the_repository_is_not_mounted_no_file_is_said_to_have_changed(indexed: Path, there: bool) -> None:
    """It cannot be told, and the answer says so."""
    indexed.rename(indexed.with_name("elsewhere"))
    if there:
        indexed.write_text("no folder")
    answer = ask("read_config")
    assert {hit.changed for hit in answer.hits} == {None}
    assert answer.hits[0].snippet == CODE["disk.py"]
    [left_out] = answer.left_out
    assert left_out.part == "files"
    assert left_out.reason.startswith("3 cannot be read: [Errno ")
    assert left_out.reason.endswith(": shown as indexed")


def test_of_a_file_that_may_not_be_read_it_cannot_be_told_whether_it_has_changed(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are read."""
    open_file = os.open

    def refuse(path: str, *options: Any, **named: Any) -> int:
        if path.endswith("disk.py"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_file(path, *options, **named)

    monkeypatch.setattr(os, "open", refuse)
    answer = ask("read_config")
    found = {hit.path: hit.changed for hit in answer.hits}
    assert found == {"disk.py": None, "web/client.py": False, "math/matrix.rs": False}
    reason = f"1 cannot be read: [Errno 13] Permission denied: '{indexed / 'disk.py'}': shown as indexed"
    assert answer.left_out == (LeftOut("files", reason),)


def test_a_file_of_which_the_drive_gives_nothing_is_no_changed_one(indexed: Path) -> None:
    """It can be opened, and not be read."""
    [passage] = [hit for hit in passages("read_config") if hit.path == "disk.py"]
    with pytest.raises(OSError, match="Input/output error"):
        snippets.read(Path("/proc/self"), replace(passage, path="mem"))


def test_a_repository_whose_folder_nobody_knows_reads_as_it_was_indexed(indexed: Path) -> None:
    """Whether it has changed cannot be told."""

    async def forget() -> None:
        await (await repository_store()).remove("1")

    run_async_in_new_loop(forget)
    hit = first("read_config")
    assert (hit.snippet, hit.changed) == (CODE["disk.py"], None)


def test_files_that_do_not_answer_are_not_waited_for(
    settings: Settings, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network drive that hangs: the snippet reads as it was indexed, and the answer says so."""
    held = threading.Event()
    monkeypatch.setattr(snippets, "read", lambda *_: held.wait(60) and None)
    put_in_force(RecallSettings(recall_timeout=timedelta(seconds=0.3)))

    async def ask_and_let_go() -> Answer:
        await search_index()
        await repository_store()
        await (await embedder()).embed(["loaded"])
        try:
            return await recall("read_config")
        finally:
            held.set()

    answer = run_async_in_new_loop(ask_and_let_go)
    assert answer.hits[0].snippet == CODE["disk.py"]
    assert [one.part for one in answer.left_out] == ["files"]


class HungDrive:
    """Files that cannot be read before `held` is set."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.reached = threading.Event()
        self.begun = 0
        self._guard = threading.Lock()

    def read(self, _: Path, passage: Passage) -> snippets.Snippet:
        with self._guard:
            self.begun += 1
        self.reached.set()
        self.held.wait(60)
        return snippets.stored(passage, changed=False)


@pytest.fixture
def hung(settings: Settings, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HungDrive]:
    """The repository lies on a drive that hangs; parts of an answer get little time."""
    drive = HungDrive()
    monkeypatch.setattr(snippets, "read", drive.read)
    run_async_in_new_loop(embedder_loaded)
    put_in_force(RecallSettings(recall_timeout=timedelta(seconds=1)))
    yield drive
    drive.held.set()


async def embedder_loaded() -> None:
    await (await embedder()).embed(["loaded"])


def test_a_drive_that_hangs_keeps_few_threads(hung: HungDrive) -> None:
    """However many ask; when it answers again, what nobody waits for is not read, and files are shown again."""

    async def ask_often() -> tuple[list[Answer], Answer]:
        late = await asyncio.gather(*(recall("read fetch multiply") for _ in range(12)))
        late += await asyncio.gather(*(recall("read fetch multiply") for _ in range(12)))
        assert hung.begun == 4
        hung.held.set()
        return late, await recall("read fetch multiply")

    late, again = run_async_in_new_loop(ask_often)
    assert all("files" in {one.part for one in answer.left_out} for answer in late)
    assert {len(answer.hits) for answer in late} == {3}
    assert again.left_out == ()
    assert hung.begun == 4 + 3


def test_a_question_that_is_cancelled_reads_no_more_files(hung: HungDrive) -> None:
    """But for the one that it is at."""

    async def ask_and_cancel() -> None:
        asking = asyncio.ensure_future(recall("read fetch multiply"))
        assert await run_in_thread_pool(hung.reached.wait, 20)
        asking.cancel()
        await asyncio.wait([asking])
        hung.held.set()
        assert (await recall("read fetch multiply")).left_out == ()

    run_async_in_new_loop(ask_and_cancel)
    assert hung.begun == 1 + 3


def test_reading_ends_with_the_attempt_for_which_it_is_done(hung: HungDrive, indexed: Path) -> None:
    """At the file that it is at."""
    read: dict[str, snippets.Snippet | OSError] = {}

    async def read_and_cancel() -> None:
        found = await (await search_index()).search_text("read fetch multiply", limit=3)
        passages = await (await search_index()).passages(found)
        reading = asyncio.ensure_future(run_in_thread_pool(snippets.read_each, {"1": indexed}, passages, read))
        assert await run_in_thread_pool(hung.reached.wait, 20)
        reading.cancel()
        await asyncio.sleep(0)
        hung.held.set()
        await asyncio.wait([reading])

    run_async_in_new_loop(read_and_cancel)
    assert (hung.begun, len(read)) == (1, 1)


def test_only_the_repository_that_is_asked_about_is_searched(indexed: Path) -> None:
    """Its code, and neither others' nor notes."""
    run_async_in_new_loop(index_files("2", indexed, "disk.py"))
    run_async_in_new_loop(capture("n", "read_config reads the configuration"))
    assert {(hit.kind, hit.repository) for hit in ask("read_config", repository="1").hits} == {("code", "1")}


def test_conversations_are_found_by_what_was_said_and_by_the_summary(settings: Settings) -> None:
    """With the conversation's id, and the time it began."""
    keep("standup", "Anna: the battery of the red bike is empty.\nBen: I will charge it.", "Ben charges the bike.")
    keep("retro", "We talked about the release.")
    assert [run_async_in_new_loop(index_conversation(name)).chunks for name in ("standup", "retro")] == [2, 1]
    hits = ask("who charges the battery of the bike?").hits
    assert {(hit.kind, hit.path) for hit in hits[:2]} == {("transcript", "standup"), ("summary", "standup")}
    assert {(hit.created, hit.changed, hit.repository) for hit in hits} == {(NOON, None, "")}


def test_a_conversation_is_indexed_anew_in_place_of_what_was(settings: Settings) -> None:
    """Nothing of the old summary is found."""
    keep("standup", None, "All about bananas.")
    run_async_in_new_loop(index_conversation("standup"))

    async def change() -> None:
        await (await conversation_store()).save_summary("standup", "All about cherries.", "digest")

    run_async_in_new_loop(change)
    run_async_in_new_loop(index_conversation("standup"))
    assert [hit.snippet for hit in ask("bananas").hits] == ["All about cherries."]


def test_a_conversation_without_words_is_no_content(settings: Settings) -> None:
    """And one that nobody knows."""
    keep("silent", None)
    for name in ("silent", "nobody"):
        with pytest.raises(NoContentFound, match="neither a transcript nor a summary"):
            run_async_in_new_loop(index_conversation(name))


def test_a_note_is_found_by_its_words_and_tags(settings: Settings) -> None:
    """The same id again replaces it."""
    for text in ("The door code is on the fridge.", "The door code has changed."):
        run_async_in_new_loop(capture("n", text, ["home", "keys"], created=NOON))
    assert [(hit.kind, hit.path, hit.snippet) for hit in ask("fridge").hits] == [
        ("note", "n", "The door code has changed.")
    ]
    assert first("keys").symbol == "home, keys"
    assert first("keys").created == NOON


@pytest.mark.parametrize(
    ("text", "tags", "said"),
    [
        ("x" * (LONGEST_NOTE + 1), [], "the note has 50001 characters: keep it to 50000"),
        ("x", ["t"] * 21, "at most 20 tags"),
        ("x", [""], "at most 20 tags, each of 1 to 100"),
        ("x", ["t" * 101], "at most 20 tags, each of 1 to 100"),
    ],
)
def test_what_is_no_note_is_refused(settings: Settings, text: str, tags: list[str], said: str) -> None:
    """In one line."""
    with pytest.raises(ConfigurationError, match=said):
        run_async_in_new_loop(capture("n", text, tags))


def test_a_blank_note_is_no_content(settings: Settings) -> None:
    """It is skipped."""
    with pytest.raises(NoContentFound, match="the note is blank"):
        run_async_in_new_loop(capture("n", " \n "))


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_a_blank_question_is_refused(settings: Settings, question: str) -> None:
    """In one line."""
    with pytest.raises(ConfigurationError, match="the question is blank"):
        ask(question)


@pytest.mark.parametrize("limit", [0, -1, 101])
def test_an_unfit_limit_is_refused(settings: Settings, limit: int) -> None:
    """In one line."""
    with pytest.raises(ConfigurationError, match="ask for 1 to 100 hits"):
        ask("x", limit=limit)


def test_a_batch_of_questions_is_kept_a_line_for_each_answer(indexed: Path) -> None:
    """In their order, and each is told."""
    told: list[tuple[int, int]] = []
    lines = answered("read_config", "fetch_url", limit=1, progress=lambda *done: told.append(done))
    assert [line["question"] for line in lines] == ["read_config", "fetch_url"]
    assert [[hit["path"] for hit in line["hits"]] for line in lines] == [["disk.py"], ["web/client.py"]]
    assert told == [(1, 2), (2, 2)]


def test_a_line_of_a_batch_is_what_the_command_line_and_http_answer(indexed: Path) -> None:
    """With its times in the same form."""
    [line] = answered("read_config", limit=1)
    assert line == to_json(run_async_in_new_loop(recall("read_config", limit=1)))
    assert line["hits"][0]["created"].endswith("Z")


def test_a_batch_without_questions_is_no_content(settings: Settings) -> None:
    """It is skipped."""
    with pytest.raises(NoContentFound, match="there are no questions"):
        answered()


@pytest.mark.parametrize(
    ("questions", "limit"), [(["read_config", " "], 10), (["read_config"], 101)], ids=["blank", "limit"]
)
def test_a_batch_with_what_cannot_be_asked_is_refused_before_anything_is(
    indexed: Path, questions: list[str], limit: int
) -> None:
    """So that nothing is answered for nothing."""
    told: list[tuple[int, int]] = []
    with pytest.raises(BadQuestion, match="ask for"):
        answered(*questions, limit=limit, progress=lambda *done: told.append(done))
    assert told == []


def test_a_batch_is_not_held_in_memory(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much its answers are together."""
    long = "x" * 2**20

    async def much(question: str, **_: object) -> Answer:
        return Answer(question, (), (LeftOut("files", long),))

    monkeypatch.setattr(recall_batches, "recall", much)
    folders = set(Path(tempfile.gettempdir()).glob("recall-*"))
    tracemalloc.start()
    try:
        run_async_in_new_loop(recall_all(["x"] * 40, "answers.jsonl"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 * 2**20
    assert set(Path(tempfile.gettempdir()).glob("recall-*")) <= folders


def test_a_question_of_a_megabyte_is_cut_and_the_answer_says_so(indexed: Path) -> None:
    """What it begins with is answered."""
    answer = ask("read_config " + "a" * 2**20)
    assert answer.hits[0].path == "disk.py"
    assert len(answer.question) == LONGEST_QUESTION
    [left_out] = answer.left_out
    assert left_out == LeftOut("question", "only its first 8000 characters of 1048588 were read")


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "read AND (",
        "text:read*",
        "+-~^",
        "' OR 1=1; DROP TABLE chunks --",
        "\0",
        "\ud800",
        "🚀",
        "???",
        "a" * 5000,
    ],
)
def test_no_question_is_taken_for_syntax(indexed: Path, question: str) -> None:
    """It is answered, however ill it is, and nothing is left out."""
    assert ask(question).left_out == ()


@pytest.mark.parametrize("repository", ["' OR '1'='1", "1' --", "", "1 OR 1", "日本", "\\"])
def test_no_repository_is_taken_for_a_filter(indexed: Path, repository: str) -> None:
    """One that there is not is told, with what to do; one that is called so holds what is its own."""
    with pytest.raises(ConfigurationError, match="^no repository .*: see `worker repositories list`"):
        ask("read_config", repository=repository)

    async def add() -> None:
        await (await repository_store()).add(Repository(name=repository, path=indexed))

    run_async_in_new_loop(add)
    assert ask("read_config", repository=repository).hits == ()


def test_an_empty_index_has_an_empty_answer(settings: Settings) -> None:
    """It is made at the first question."""
    assert ask("anything") == Answer("anything", (), ())


def test_a_reranker_orders_what_was_found(settings: Settings, indexed: Path) -> None:
    """Its scores are the hits'."""
    with endpoint(prefers("Matrix"), reranker_url=True) as served:
        answer = ask("read_config")
    assert (answer.hits[0].path, answer.hits[0].score) == ("math/matrix.rs", 1.0)
    assert served.requests[0].body["query"] == "read_config"
    assert answer.left_out == ()


@pytest.mark.parametrize(
    "answer",
    [fails(500), fails(429, retry_after="3600"), fails(401), EndpointAnswer(body=b"?"), EndpointAnswer(silent=True)],
    ids=["broken", "busy", "refused", "nonsense", "silent"],
)
def test_an_answer_goes_without_a_reranker_that_fails(
    settings: Settings, indexed: Path, answer: EndpointAnswer
) -> None:
    """It is what the searches alone say, and tells of it."""
    without = ask("read_config").hits
    values = {"reranker_url": True, "reranker_timeout": timedelta(seconds=0.1)}
    with endpoint(lambda _: answer, **values):
        found = ask("read_config")
    assert found.hits == without
    assert [one.part for one in found.left_out] == ["reranker"]
    assert found.describe() == "3 hits, without reranker"


def test_an_answer_goes_without_vectors_if_the_embedder_fails(settings: Settings, indexed: Path) -> None:
    """The words are enough to find something, and the answer says what it lacks."""
    same = {"embedder": "openai", "embedder_model": "wordllama-2", "embedder_dimensions": 256, "embedder_url": True}
    with endpoint(lambda _: fails(503), **same):
        answer = ask("read_config")
    assert answer.hits[0].path == "disk.py"
    assert [one.part for one in answer.left_out] == ["vectors"]
    assert "answered 503" in answer.left_out[0].reason


@pytest.mark.parametrize(("part", "method"), [("vectors", "search_vector"), ("words", "search_text")])
def test_an_answer_goes_without_a_search_that_is_slow(
    settings: Settings, indexed: Path, monkeypatch: pytest.MonkeyPatch, part: str, method: str
) -> None:
    """It names the part, and the setting that says how long it may take."""
    put_in_force(RecallSettings(recall_timeout=timedelta(seconds=0.5)))

    async def slow(*_: object, **__: object) -> None:
        await asyncio.sleep(5)

    async def ask_when_opened() -> Answer:
        await search_index()
        monkeypatch.setattr(SearchIndex, method, slow)
        return await recall("read_config")

    answer = run_async_in_new_loop(ask_when_opened)
    assert answer.hits[0].path == "disk.py"
    assert [(one.part, "WORKER_RECALL_TIMEOUT" in one.reason) for one in answer.left_out] == [(part, True)]


def test_an_answer_goes_without_vectors_if_the_embedder_answers_with_others(settings: Settings, indexed: Path) -> None:
    """Of another length than the settings say: the answer tells which setting it is."""
    same = {"embedder": "openai", "embedder_model": "wordllama-2", "embedder_dimensions": 256, "embedder_url": True}
    short = as_json({"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0]}]})
    with endpoint(lambda _: short, **same):
        answer = ask("read_config")
    assert answer.hits[0].path == "disk.py"
    assert [one.part for one in answer.left_out] == ["vectors"]
    assert "WORKER_EMBEDDER_DIMENSIONS=256" in answer.left_out[0].reason


def test_an_answer_goes_without_files_if_the_database_is_broken(settings: Settings, indexed: Path) -> None:
    """What was found reads as it was indexed."""
    [database] = settings.data_dir.glob("*.db")
    for one in settings.data_dir.glob(f"{database.name}*"):
        one.unlink()
    database.write_bytes(b"no database" * 1000)
    answer = ask("read_config")
    assert (answer.hits[0].snippet, answer.hits[0].changed) == (CODE["disk.py"], None)
    assert [one.part for one in answer.left_out] == ["repositories"]


@pytest.mark.parametrize(
    "error",
    [InterfaceError("SELECT", None, Exception("connection is closed")), ConnectionRefusedError("connection refused")],
    ids=["closed", "refused"],
)
def test_an_answer_goes_without_files_if_the_database_is_away(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Which the drivers of servers tell in other words than SQLite's; with a repository asked for, it is the error."""

    async def away(*_: object, **__: object) -> None:
        raise error

    async def ask_without() -> Answer:
        await repository_store()
        monkeypatch.setattr(AsyncConnection, "execute", away)
        with pytest.raises(DatabaseFailed, match="connection"):
            await recall("read_config", repository="1")
        return await recall("read_config")

    answer = run_async_in_new_loop(ask_without)
    assert answer.hits[0].snippet == CODE["disk.py"]
    assert [one.part for one in answer.left_out] == ["repositories"]
    assert "sqlite" in answer.left_out[0].reason


@pytest.mark.parametrize("silent", ["repository_store", "search_index", "reranker"])
def test_what_does_not_open_is_not_waited_for(
    settings: Settings, indexed: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    """A server that takes a connection and says nothing: the error names the setting."""

    async def opens_never() -> None:
        await asyncio.sleep(60)

    async def ask_there() -> None:
        for opened in (search_index, repository_store):
            await opened()
        monkeypatch.setattr(f"worker.recall.recall.{silent}", opens_never)
        await recall("read_config", repository="1")

    put_in_force(RecallSettings(recall_timeout=timedelta(seconds=0.3)))
    with pytest.raises(RecallFailed, match=r"longer than 300ms .*WORKER_RECALL_TIMEOUT"):
        run_async_in_new_loop(ask_there, timeout=20)


def test_an_answer_without_either_search_is_none(
    settings: Settings, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what happened to each."""

    async def broken(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("worker.stores.index.SearchIndex.search_text", broken)
    monkeypatch.setattr("worker.stores.index.SearchIndex.search_vector", broken)
    with pytest.raises(RecallFailed, match="(vectors|words): the disk is gone; (vectors|words): the disk is gone"):
        ask("read_config")


def test_another_embedder_is_told_and_not_mixed(settings: Settings, indexed: Path) -> None:
    """The answer is the remedy."""
    other = {"embedder": "openai", "embedder_model": "other", "embedder_dimensions": 256, "embedder_url": True}
    with endpoint(lambda _: fails(503), **other), pytest.raises(IndexMismatch, match="wordllama-2"):
        ask("read_config")
