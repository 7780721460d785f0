"""The actors, on a stub broker, with the real site: both ways do the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import dramatiq
import pytest

from crawler import site
from crawler.actors import fetch_page, fetch_page_on_thread
from worker.testing import StubWorker, stub_worker

Actor = dramatiq.Actor[[str], None]
WAYS = pytest.mark.parametrize("actor", [fetch_page, fetch_page_on_thread], ids=lambda actor: str(actor.actor_name))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The site, which knows of no request yet."""
    with subprocess.Popen([sys.executable, "-m", "crawler.site"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def account(worker: StubWorker) -> list[tuple[str, int]]:
    """The state of each event, and its attempt."""
    return [(event.state, event.attempt or 0) for event in worker.events]


@WAYS
def test_a_page_is_fetched(url: str, actor: Actor) -> None:
    """A page that is there is fetched once, with its URL as the subject of both events."""
    with stub_worker() as worker:
        actor.send(f"{url}/pages/7")
        worker.join()
        assert account(worker) == [("started", 1), ("completed", 1)]
        assert [dict(event.subject) for event in worker.events] == [{"url": f"{url}/pages/7"}] * 2


@WAYS
def test_a_page_that_is_missing_is_skipped(url: str, actor: Actor) -> None:
    """Where there is no page, there is nothing to do."""
    with stub_worker() as worker:
        actor.send(f"{url}/pages/{site.MISSING}")
        worker.join()
        assert account(worker) == [("started", 1), ("skipped", 1)]
        assert worker.dead_letters == []


def test_a_busy_site_is_asked_again(url: str) -> None:
    """A page that is busy is fetched again when the site says, and its message waits meanwhile."""
    with stub_worker() as worker:
        fetch_page.send(f"{url}/pages/{site.BUSY}")
        worker.join()
        assert account(worker) == [("started", 1), ("snoozed", 1), ("started", 2), ("completed", 2)]
