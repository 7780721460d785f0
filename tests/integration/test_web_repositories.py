"""Repositories over a real server: as JSON and as a page, with a real index behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.support.brokers import own_broker
from tests.support.git_trees import write
from tests.support.web import serving
from worker import actor
from worker.bridge import run_async_in_new_loop
from worker.ground.extras import is_installed
from worker.ground.json_values import to_json
from worker.models.settings import ModelSettings
from worker.recall import repository_sync
from worker.recall.repositories import add_repository, describe_repositories
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.repositories import Sync, SyncState, repository_store
from worker.stores.settings import StoreSettings
from worker.web import create_app, rendering

PAGE = {"accept": "text/html"}


@pytest.fixture
def known(settings: Settings, valkey: EmbeddedServer, tmp_path: Path) -> Iterator[Settings]:
    """Settings with a repository that was synced and one that was not, and an actor that would sync them."""
    for name in ("shop", "<b>new"):
        folder = write(tmp_path / name, {"a.py": "def a(): pass\n", "b.py": "def b(): pass\n", "c": b"\0"})
        run_async_in_new_loop(add_repository(folder, name.removeprefix("<b>")))
    run_async_in_new_loop(repository_sync.sync_repository("shop"))
    with own_broker(settings):

        @actor(queue_name="cpu")
        async def sync_repository(path_or_name: str) -> None: ...

        yield settings.model_copy(update={"actors": ("tests.support.web",)})


@pytest.fixture
def web(known: Settings) -> Iterator[httpx.Client]:
    with serving(create_app(known)) as client:
        yield client


def described(name: str) -> dict[str, Any]:
    """What `worker repositories show --json` prints."""
    [found] = run_async_in_new_loop(describe_repositories([name])).repositories
    described: dict[str, Any] = to_json(found)
    return described


def note(name: str, sync: Sync) -> None:
    """Notes how a sync goes, as a worker does."""

    async def noted() -> None:
        await (await repository_store()).save_sync(name, sync)

    run_async_in_new_loop(noted)


def test_repositories_are_described_as_on_the_command_line(web: httpx.Client) -> None:
    """One by its name, all in the order in which they were added."""
    both = [described(name) for name in ("shop", "new")]
    assert web.get("/api/repositories").json() == {"repositories": both}
    assert web.get("/api/repositories/shop").json() == both[0]
    assert both[0]["files"] == 2
    assert both[0]["left_out"] == {"binary": 1}
    assert both[1]["sync"] is None


def test_a_sync_is_enqueued(web: httpx.Client) -> None:
    """For the actor that does it, on the queue where it does; the audit log says by whom."""
    answer = web.post("/api/repositories/shop/sync")
    assert answer.status_code == 201, answer.text
    message = web.get(f"/api/messages/{answer.json()['message_id']}").json()
    assert (message["actor"], message["queue"], message["state"]) == ("sync_repository", "cpu", "queued")
    [entry] = web.get("/api/audit").json()["actions"]
    assert (entry["action"], entry["by"], entry["target"]) == ("sync", "web@127.0.0.1", "shop")
    assert entry["ids"] == [message["id"]]


@pytest.mark.parametrize("name", ["nobody", "%20", "..%2Fshop", "' OR 1=1", "x" * 200, "日本"])
def test_a_repository_that_nobody_knows_is_told(web: httpx.Client, name: str) -> None:
    """Whatever it is called, and nothing is enqueued for it."""
    for answer in (web.get(f"/api/repositories/{name}"), web.post(f"/api/repositories/{name}/sync")):
        assert answer.status_code == 404
        assert set(answer.json()) == {"error", "detail"}
    assert web.get("/api/messages").json()["messages"] == []


@pytest.mark.parametrize("name", ["%00", "shop%00", "x" * 201])
def test_what_can_be_no_name_is_refused(web: httpx.Client, name: str) -> None:
    """Before a database is asked for it that may not take it."""
    assert web.get(f"/api/repositories/{name}").status_code == 422
    assert web.post(f"/api/repositories/{name}/sync").status_code == 422


def test_a_sync_needs_the_actor_that_does_it(settings: Settings, known: Settings) -> None:
    """Where `WORKER_ACTORS` does not name it, nothing is enqueued."""
    with own_broker(settings), serving(create_app(known)) as web:
        answer = web.post("/api/repositories/shop/sync")
    assert answer.status_code == 404
    assert "sync_repository" in answer.json()["detail"]


def test_who_may_only_read_sees_repositories_and_cannot_sync(known: Settings) -> None:
    """On the page there is no button for it."""
    tokens = {"web_token": SecretStr("full"), "web_read_token": SecretStr("read")}
    with serving(create_app(known.model_copy(update=tokens))) as web:
        reader, full = ({"authorization": f"Bearer {token}"} for token in ("read", "full"))
        assert web.get("/api/repositories").status_code == 401
        assert web.get("/api/repositories/shop", headers=reader).status_code == 200
        assert web.post("/api/repositories/shop/sync", headers=reader).status_code == 403
        assert "data-sync" not in web.get("/repositories", headers=reader).text
        assert 'data-sync="shop"' in web.get("/repositories", headers=full).text


def test_the_page_shows_what_is_stored_and_the_last_sync(web: httpx.Client) -> None:
    """Markup in a path is text, and each repository leads to its messages."""
    page = web.get("/repositories", headers=PAGE)
    assert page.status_code == 200
    assert 'href="/messages?subject=repository%3Dshop"' in page.text
    assert '<progress max="100" value="100.0">' in page.text
    assert "2 files stored in 2 chunks" in page.text
    assert "1 binary" in page.text
    assert "never synced" in page.text
    assert "&lt;b&gt;new" in page.text
    assert "<b>new" not in page.text


def test_a_sync_that_was_not_heard_of_for_long_is_lost(web: httpx.Client) -> None:
    """In whatever shows it: its worker was killed, and nobody has gone on since; one that was heard of runs."""
    now = datetime.now(UTC)
    running = Sync(state=SyncState.RUNNING, started_at=now - timedelta(hours=1), updated_at=now, matching=9, done=3)
    note("shop", running)
    note("new", replace(running, updated_at=now - timedelta(minutes=11)))
    states = {name: described(name)["sync"]["state"] for name in ("shop", "new")}
    assert states == {"shop": "running", "new": "lost"}
    assert {one["name"]: one["sync"]["state"] for one in web.get("/api/repositories").json()["repositories"]} == states
    page = web.get("/repositories").text
    assert '<span class="state lost">lost</span>' in page
    assert "the next sync continues it" in page
    assert page.count('value="33.3"') == 2


def other_embedder() -> None:
    """Another embedder is to read the index."""
    url = "http://localhost:9"
    put_in_force(ModelSettings(embedder="openai", embedder_model="m", embedder_dimensions=3, embedder_url=url))


def no_folder() -> None:
    """The settings name a file as the folder of the index."""
    file = Settings.in_force().data_dir / "file"
    file.touch()
    put_in_force(StoreSettings(index_dir=file))


def broken_files() -> None:
    """The stored files cannot be read any more."""
    for file in StoreSettings.in_force().index_dir.glob("*.lance/data/*"):
        file.write_bytes(b"\0" * 300)


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [(other_embedder, "worker index rebuild"), (no_folder, "name a folder"), (broken_files, "cannot be read")],
)
def test_an_index_that_cannot_be_read_is_told(known: Settings, damage: Any, remedy: str) -> None:
    """With the remedy; the page still shows which repositories there are, and how they were synced."""
    damage()
    with serving(create_app(known)) as web:
        for path in ("/api/repositories", "/api/repositories/shop"):
            answer = web.get(path)
            assert answer.status_code == 503
            assert remedy in answer.json()["detail"]
        page = web.get("/repositories", headers=PAGE)
    assert page.status_code == 200
    assert remedy in page.text
    assert '<span class="state completed">completed</span>' in page.text
    assert "files stored</dt>" not in page.text


def test_a_database_that_cannot_be_opened_is_told(known: Settings) -> None:
    """On a page too, in a line with the setting."""
    url = SecretStr("sqlite+aiosqlite:////dev/null/none.db")
    put_in_force(StoreSettings(database_url=url))
    with serving(create_app(known)) as web:
        assert web.get("/api/repositories").status_code == 503
        page = web.get("/repositories", headers=PAGE)
    assert page.status_code == 200
    assert "WORKER_DATABASE_URL" in page.text


def test_the_menu_names_the_page_only_where_the_extra_is(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there would be nothing behind the link."""
    assert is_installed("recall")
    assert 'href="/repositories"' in web.get("/queues").text
    monkeypatch.setitem(rendering._TEMPLATES.globals, "with_recall", False)
    assert 'href="/repositories"' not in web.get("/queues").text
