"""Recall over a real server, with a real Valkey behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.exc import InterfaceError

from tests.support.brokers import own_broker
from tests.support.model_endpoint import fails, model_endpoint
from tests.support.web import serving
from worker.bridge import run_async_in_new_loop
from worker.errors import ConfigurationError, RetryLater
from worker.models.settings import ModelSettings
from worker.recall.indexing import capture
from worker.recall.settings import RecallSettings
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.database import DatabaseFailed
from worker.stores.index import IndexFailed, SearchIndex, search_index
from worker.web import create_app

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def known(settings: Settings, valkey: EmbeddedServer) -> Iterator[Settings]:
    """Settings without the built-in actors, and an index with a note."""
    run_async_in_new_loop(capture("n", "The door code is on the fridge.", ["home"], created=NOON))
    with own_broker(settings):
        yield settings.model_copy(update={"actors": ("tests.support.web",)})


@pytest.fixture
def web(known: Settings) -> Iterator[httpx.Client]:
    with serving(create_app(known)) as client:
        yield client


@pytest.mark.parametrize("path", ["/api/recall", "/recall"])
def test_a_question_is_answered(web: httpx.Client, path: str) -> None:
    """With all that is known of each hit."""
    answer = web.post(path, json={"question": "where is the door code?", "limit": 3})
    assert answer.status_code == 200, answer.text
    [hit] = answer.json()["hits"]
    assert hit.pop("score") > 0
    assert hit == {
        "kind": "note",
        "repository": "",
        "path": "n",
        "start_line": 1,
        "end_line": 1,
        "language": None,
        "symbol": "home",
        "snippet": "The door code is on the fridge.",
        "changed": None,
        "created": "2024-03-01T12:00:00.000Z",
    }
    assert answer.json()["left_out"] == []


def test_what_an_answer_goes_without_is_told(known: Settings) -> None:
    """A reranker that fails, and a question that is too long."""
    with model_endpoint(otherwise=lambda _: fails(500)) as endpoint:
        put_in_force(ModelSettings(reranker_url=endpoint.url))
        run_async_in_new_loop(capture("m", "Another door."))
        with serving(create_app(known)) as web:
            answer = web.post("/recall", json={"question": "door " * 10_000}).json()
    assert [one["part"] for one in answer["left_out"]] == ["question", "reranker"]
    assert "answered 500" in answer["left_out"][1]["reason"]
    assert len(answer["hits"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/recall", {"question": ""}, "body.question"),
        ("/recall", {"question": " \n"}, "body.question"),
        ("/recall", {"question": "x" * 100_001}, "body.question"),
        ("/recall", {"question": "x", "limit": 0}, "body.limit"),
        ("/recall", {"question": "x", "limit": 101}, "body.limit"),
        ("/recall", {"question": "x", "repo": "1"}, "body.repo"),
        ("/recall", {}, "body.question"),
        ("/capture", {"text": " "}, "body.text"),
        ("/capture", {"text": "x" * 50_001}, "body.text"),
        ("/capture", {"text": "x", "tags": ["t"] * 21}, "body.tags"),
        ("/capture", {"text": "x", "tags": [""]}, "body.tags.0"),
    ],
)
def test_a_body_that_is_none_is_refused(web: httpx.Client, path: str, body: object, said: str) -> None:
    """With the value that is wrong."""
    answer = web.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(said)


def test_a_question_of_a_megabyte_is_refused(web: httpx.Client) -> None:
    """Before it is read."""
    assert web.post("/recall", json={"question": "x" * 2**20}).status_code == 413


@pytest.mark.parametrize("question", ["' OR 1=1 --", 'a" AND (', "\0", "*", "日本"])
def test_nothing_in_a_question_is_syntax(web: httpx.Client, question: str) -> None:
    """Nor in the repository."""
    assert web.post("/recall", json={"question": question}).json()["left_out"] == []
    answer = web.post("/recall", json={"question": "door", "repository": question})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("no repository")


def test_an_index_of_another_embedder_is_told(known: Settings) -> None:
    """As something that the server lacks, with the remedy."""
    put_in_force(
        ModelSettings(embedder="openai", embedder_model="m", embedder_dimensions=3, embedder_url="http://localhost:9")
    )
    with serving(create_app(known)) as web:
        answer = web.post("/recall", json={"question": "x"})
    assert answer.status_code == 503
    assert "worker index rebuild" in answer.json()["detail"]


@pytest.mark.parametrize("opened", ["search_index", "repository_store"])
@pytest.mark.parametrize(
    "error",
    [
        IndexFailed("the search index in x cannot be read: it is damaged"),
        RetryLater(1, "others write the search index in x"),
        ConfigurationError("the search index in x cannot be opened"),
        DatabaseFailed("the database x cannot be read or written: database is locked"),
        InterfaceError("SELECT", None, Exception("connection is closed")),
        ConnectionRefusedError("connection refused"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_read_is_not_the_visitors_fault(
    web: httpx.Client, monkeypatch: pytest.MonkeyPatch, opened: str, error: Exception
) -> None:
    """The index or the database may be there a moment later: 503, with what is wrong."""

    async def fail() -> None:
        raise error

    monkeypatch.setattr(f"worker.recall.recall.{opened}", fail)
    repository = "x" if opened == "repository_store" else None
    answer = web.post("/recall", json={"question": "door", "repository": repository})
    assert answer.status_code == 503, answer.text
    assert str(error).split(":")[0].split("\n")[0] in answer.json()["detail"]


@pytest.mark.parametrize("away", ["refuses", "is silent"])
def test_the_web_process_starts_without_its_database(
    known: Settings, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    """What does not need it is ready and works; whoever needs it is told."""
    ready: list[SearchIndex] = []

    async def database() -> None:
        await asyncio.sleep(60 if away == "is silent" else 0)
        raise ConnectionRefusedError("connection refused")

    async def index() -> None:
        ready.append(await search_index())

    monkeypatch.setattr("worker.recall.loading.repository_store", database)
    monkeypatch.setattr("worker.recall.loading.search_index", index)
    put_in_force(RecallSettings(recall_timeout=timedelta(seconds=3)))
    with serving(create_app(known)) as web:
        assert len(ready) == 1
        assert len(web.post("/recall", json={"question": "door"}).json()["hits"]) == 1


def test_the_web_process_starts_without_actors_that_cannot_be_imported(known: Settings, tmp_path: Path) -> None:
    """A module needs another one that is not installed here."""
    (tmp_path / "actors_of_elsewhere.py").write_text("import a_module_that_is_not_here\n")
    with serving(create_app(known.model_copy(update={"actors": ("actors_of_elsewhere",)}))) as web:
        assert len(web.post("/recall", json={"question": "door"}).json()["hits"]) == 1


def test_a_note_needs_the_actor_that_keeps_it(web: httpx.Client) -> None:
    """Where `WORKER_ACTORS` does not name it, nothing is enqueued."""
    answer = web.post("/capture", json={"text": "x"})
    assert answer.status_code == 404
    assert "capture_note" in answer.json()["detail"]


def test_who_may_only_read_may_ask_and_not_capture(known: Settings) -> None:
    """As with everything that changes something."""
    tokens = {"web_token": SecretStr("full"), "web_read_token": SecretStr("read")}
    with serving(create_app(known.model_copy(update=tokens))) as web:
        reader = {"authorization": "Bearer read"}
        assert web.post("/recall", json={"question": "x"}).status_code == 401
        assert web.post("/recall", json={"question": "x"}, headers=reader).status_code == 200
        assert web.post("/capture", json={"text": "x"}, headers=reader).status_code == 403
