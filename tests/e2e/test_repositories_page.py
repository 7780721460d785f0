"""The page of repositories in a real browser: a real worker syncs a folder, and an embedder gives it its pace."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import browsing, visiting
from tests.support.git_trees import write
from tests.support.model_endpoint import Answer, Request, as_json, model_endpoint
from tests.support.project import WORKER, Project

FILES, BATCH, DIMENSIONS = 40, 10, 4


@pytest.fixture
def turns() -> Iterator[threading.Semaphore]:
    """Each lets the embedder answer once."""
    made = threading.Semaphore(0)
    yield made
    made.release(FILES)


@pytest.fixture
def project(tmp_path: Path, turns: threading.Semaphore) -> Iterator[Project]:
    """A project with a folder to sync, workers, a dashboard, and an embedder that waits for its turns."""

    def embeddings(request: Request) -> Answer:
        turns.acquire()
        vectors = [{"index": n, "embedding": [1.0] * DIMENSIONS} for n, _ in enumerate(request.body["input"])]
        return as_json({"data": vectors})

    files: dict[str, str | bytes] = {f"part{n}.py": f"def charge_{n}():\n    return {n}\n" for n in range(FILES)}
    write(tmp_path / "shop", files)
    with model_endpoint(otherwise=embeddings) as endpoint:
        made = Project(
            tmp_path / "project",
            WORKER_SYNC_BATCH=str(BATCH),
            WORKER_EMBEDDER="openai",
            WORKER_EMBEDDER_URL=endpoint.url,
            WORKER_EMBEDDER_MODEL="model",
            WORKER_EMBEDDER_DIMENSIONS=str(DIMENSIONS),
        )
        made.worker("repositories", "add", str(tmp_path / "shop"))
        with (
            made.background(WORKER, "up"),
            made.background("/usr/bin/env", WORKER, "web", "--port", "0", "--json"),
        ):
            yield made
        made.down()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium."""
    with browsing() as opened:
        yield opened


def test_a_sync_is_begun_on_its_page_and_its_bar_is_seen_to_move(
    project: Project, browser: Browser, turns: threading.Semaphore
) -> None:
    """Batch by batch, while nobody loads the page again; where the index is another embedder's, the page says so."""
    with visiting(browser, project.served()) as visit:
        page = visit.go("/")
        page.locator("#nav").get_by_role("link", name="Repositories").click()
        shop = page.locator("section", has_text="shop")
        expect(shop).to_contain_text("never synced")
        page.evaluate("window.same = true")
        shop.get_by_role("button", name="Sync").click()
        expect(page.locator("#toast")).to_contain_text("Enqueued:")
        expect(shop.locator(".state")).to_have_text("running")
        bar = shop.locator("progress")
        for done in range(BATCH, FILES, BATCH):
            turns.release()
            expect(bar).to_have_attribute("value", f"{100 * done / FILES:.1f}")
            expect(shop.locator(".progress")).to_contain_text(f"{done} of {FILES}")
            expect(shop.locator(".facts")).to_contain_text(re.compile(rf"files stored\s*{done}\s*chunks\s*{done}"))
            expect(shop.locator(".state")).to_have_text("running")
        turns.release()
        expect(shop.locator(".state")).to_have_text("completed")
        expect(bar).to_have_attribute("value", "100.0")
        expect(shop).to_contain_text(f"{FILES} files stored in {FILES} chunks")
        assert page.evaluate("window.same")
        shop.get_by_role("link", name="Messages").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text("repository=shop")
        expect(page.locator("tbody tr .state")).to_have_text("completed")
    other = ("WORKER_EMBEDDER_MODEL=another", WORKER, "web", "--port", "0", "--json")
    with project.background("/usr/bin/env", *other), visiting(browser, project.served(1)) as visit:
        page = visit.go("/repositories")
        expect(page.get_by_role("alert")).to_contain_text("worker index rebuild")
        expect(page.locator("section", has_text="shop").locator(".state")).to_have_text("completed")
