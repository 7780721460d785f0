"""Pages and API read one table of filters: what one refuses, the other refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.web import serving
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app

PAGES = {"/messages": "/api/messages", "/live": "/api/events"}
BAD = [
    ("state", "started,dead"),
    ("subject", "42"),
    ("subject", "=42"),
    ("error", "x" * 1_001),
    ("actor", "x" * 1_001),
    ("since", "garbage"),
    ("since", "90"),
    ("until", "9" * 30 + "d"),
    ("until", "tomorrow"),
]
GOOD = [
    ("state", "failed"),
    ("subject", "conversation_id=42"),
    ("subject", "a=b=c"),
    ("error", "x" * 1_000),
    ("actor", "merge"),
    ("queue", "cpu"),
    ("since", "2h"),
    ("since", "1h 30m"),
    ("since", "1.5h"),
    ("until", "2026-11-21"),
    ("until", "2026-11-21T09:00"),
    ("until", "2026-11-21T09:00:00Z"),
]


@pytest.fixture
def web(settings: Settings, valkey: EmbeddedServer) -> Iterator[httpx.Client]:
    """The web process of an empty system."""
    with serving(create_app(settings)) as client:
        yield client


def test_a_page_complains_of_a_filter_that_the_api_refuses(web: httpx.Client) -> None:
    """A page without a word would show a list, or follow a stream, that nobody gives it."""
    for page, question in PAGES.items():
        for name, text in BAD:
            assert web.get(question, params={name: text}).status_code == 422, (question, name, text)
            answer = web.get(page, params={name: text})
            assert answer.status_code == 422, (page, name, text)
            assert f'<p class="complaint" role="alert">{name} ' in answer.text


def test_a_page_takes_the_filters_that_the_api_takes(web: httpx.Client) -> None:
    """A page that offers less than its stream or its list cannot be linked to."""
    for paths in PAGES.items():
        for path in paths:
            for name, text in GOOD:
                assert web.get(path, params={name: text}).status_code == 200, (path, name, text)


def test_a_question_refuses_a_name_that_it_does_not_know(web: httpx.Client) -> None:
    """As the command line and a body do: without the misspelt condition, everything would match."""
    for path in ("messages", "messages/count", "events", "events/live", "running", "delayed", "dead", "actors"):
        answer = web.get(f"/api/{path}", params={"colour": "red"})
        assert answer.status_code == 422, path
        assert answer.json()["detail"].startswith("query.colour: there is no such parameter; there are ")
    answer = web.post("/api/actions/purge?dry_run=true", json={"filter": {}})
    assert answer.json()["detail"] == "query.dry_run: there is no such parameter; there are none"
    for page in ("messages", "live"):
        answer = web.get(f"/{page}", params={"colour": "red"})
        assert answer.status_code == 422, page
        assert "colour: there is no such filter; there are " in answer.text
    for page in ("", "running", "delayed", "dead", "workers", "queues", "audit", "login", "messages/m-1"):
        answer = web.get(f"/{page}", params={"colour": "red"})
        assert answer.status_code == 422, page
        assert "colour: there is no such parameter of this page; there are " in answer.text
    assert web.get("/delayed", params={"cursor": "1/a"}).status_code == 200
    assert web.get("/api/messages", params={"limit": 1, "cursor": 5, "actor": "a"}).status_code == 200


def test_of_two_values_of_one_condition_none_is_silently_dropped(web: httpx.Client) -> None:
    """The API and the pages refuse them, as the command line does."""
    for path in ("/api/messages", "/api/messages/count", "/api/events", "/messages", "/live"):
        answer = web.get(path, params={"actor": ["a", "b"]})
        assert (answer.status_code, "actor: 2 were given: at most 1" in answer.text) == (422, True), path


def test_a_time_that_ends_before_it_begins_is_refused(web: httpx.Client) -> None:
    """By the API, by an action and by the pages: nothing can match it."""
    asked = {"since": "2h", "until": "3h"}
    complaint = "since 2h: it is later than until 3h: swap them"
    for path in ("/api/messages", "/api/messages/count", "/api/events", "/api/events/live", "/messages", "/live"):
        answer = web.get(path, params=asked)
        assert (answer.status_code, complaint in answer.text) == (422, True), path
    assert complaint in web.post("/api/actions/purge", json={"filter": asked}).json()["detail"]
    assert web.get("/api/messages", params={"since": "3h", "until": "2h"}).status_code == 200


def test_a_complaint_has_the_words_of_the_table_and_no_others(web: httpx.Client) -> None:
    """Nothing of how it is checked."""
    said = web.get("/api/events", params={"since": "garbage"}).json()["detail"]
    assert said.startswith("query.since: garbage: write how long ago")
    said = web.get("/api/events", params={"state": "done"}).json()["detail"]
    assert said.startswith("query.state: Input should be 'started', 'progress'")


def test_a_body_refuses_what_a_query_refuses(web: httpx.Client) -> None:
    """In the same words."""
    for name, text in BAD:
        value: Any = [text] if name in ("state", "subject") else text
        answer = web.post("/api/actions/cancel", json={"filter": {name: value}})
        asked = web.get("/api/messages", params={name: text})
        assert answer.status_code == 422, (name, text)
        assert answer.json()["detail"].rpartition(": ")[2] == asked.json()["detail"].rpartition(": ")[2]
