"""The command line with `--json` and the API say the same of the same thing, in the same words."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.logs import logging_put_back
from tests.support.waiting import wait_until
from tests.support.web import serving, some_messages
from worker.cli.app import app
from worker.ground.json_values import to_json
from worker.history.as_json import Event, ExportedMessage, Shown
from worker.history.events import State, StatusEvent
from worker.operations.actions import pause
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.web import create_app

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TIMES = {"time", "since", "started", "ended", "enqueued", "heartbeat", "start"}
MOVING = {"heartbeat", "oldest_seconds", "per_second", "error_share", "ahead", "progress"}
"""What may change from one look to the next."""


@pytest.fixture
def web(settings: Settings, valkey: EmbeddedServer) -> Iterator[httpx.Client]:
    """A web process that shows everything, and messages in every state; this process has the same settings."""
    own = settings.model_copy(
        update={"actors": ("tests.support.web",), "web_show_arguments": True, "log_level": "error"}
    )
    with (
        logging_put_back(),
        some_messages(own),
        serving(create_app(own)) as client,
        contextlib.closing(connect(own)) as server,
    ):
        pause(server, "any", by="ann")
        wait_until(lambda: client.get("/api/running").json()["messages"][0]["progress"] is not None)
        yield client
    put_in_force(None)


def printed(*words: str) -> list[Any]:
    """What `worker …` prints, a JSON value a line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app([*words], standalone_mode=False)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def got(web: httpx.Client, path: str, **parameters: Any) -> Any:
    answer = web.get(f"/api{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def without_arguments(page: dict[str, Any]) -> dict[str, Any]:
    """A page as the command line has it, which shows arguments only on request."""
    return page | {"messages": [one | {"arguments": None} for one in page["messages"]]}


def still(value: Any) -> Any:
    """The same, with what moves left as null."""
    if isinstance(value, dict):
        return {key: None if key in MOVING else still(one) for key, one in value.items()}
    return [still(one) for one in value] if isinstance(value, list) else value


def keys_and_times(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, dict):
        yield from value.items()
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_and_times(one)


def test_both_say_the_same_of_the_same_thing(web: httpx.Client) -> None:
    """Messages, a timeline, events, what runs, queues, workers, rates, states, causes, the audit log and health."""
    page = got(web, "/messages", limit=200)
    assert printed("messages", "--arguments", "--json") == [page]
    assert printed("messages", "--count", "--json") == [got(web, "/messages/count")]
    assert printed("dead", "list", "--json") == [without_arguments(got(web, "/messages", state="dead"))]
    dead = got(web, "/messages", state="dead")["messages"][0]["id"]
    assert printed("show", dead, "--arguments", "--json") == [got(web, f"/messages/{dead}")]
    events = got(web, "/events", message_id=dead)["events"]
    assert printed("events", "--message-id", dead, "--json") == events
    assert [one["events"] for one in got(web, f"/messages/{dead}")["timeline"]] == [events]
    [running] = printed("running", "--json")
    hidden = [one | {"arguments": None} for one in got(web, "/running")["messages"]]
    assert still(running["messages"]) == still(hidden)
    assert printed("delayed", "--json") == [without_arguments(got(web, "/delayed"))]
    assert still(printed("queues", "--json")) == [still(got(web, "/queues"))]
    assert still(printed("workers", "--json")) == [still(got(web, "/workers"))]
    assert printed("audit", "--json") == [got(web, "/audit")]
    assert printed("health", "--json") == [got(web, "/health")]
    [status] = printed("status", "--json")
    assert status["states"] == got(web, "/states")["states"]
    assert status["dead_by_cause"] == got(web, "/dead")["dead_by_cause"]
    assert still(status["actors"]) == still(got(web, "/actors"))["actors"]
    assert still(status["queues"]) == still(got(web, "/queues"))["queues"]
    assert still(status["workers"]) == still(got(web, "/workers"))["workers"]
    assert still(status["running"]) == still(hidden)


def test_both_lead_to_the_next_page_with_the_same_cursor(web: httpx.Client) -> None:
    """Of dead letters and of delayed messages; the last page has none."""
    for words, path, further in (
        (("dead", "list"), "/messages", {"state": "dead"}),
        (("delayed",), "/delayed", {}),
    ):
        first = got(web, path, limit=1, **further)
        assert printed(*words, "--limit", "1", "--json") == [without_arguments(first)]
        cursor = str(first["cursor"])
        following = got(web, path, limit=100, cursor=cursor, **further)
        assert printed(*words, "--cursor", cursor, "--json") == [without_arguments(following)]
        assert first["messages"][0] not in following["messages"]
        assert following["cursor"] is None


def test_both_say_the_same_of_a_message_that_they_enqueue(web: httpx.Client) -> None:
    """Its id, its actor, its queue, and whether it is new."""
    over_http = web.post("/api/messages", json={"actor": "anything"}).json()
    [by_command] = printed("enqueue", "anything", "--json")
    assert over_http | {"message_id": ""} == by_command | {"message_id": ""}
    assert over_http["is_new"] is True


def test_both_say_the_same_of_an_action(web: httpx.Client) -> None:
    """In a dry run, and of a queue that is paused and goes on."""
    asked = {"filter": {"state": ["dead"]}, "dry_run": True}
    assert printed("dead", "replay", "--all", "--dry-run", "--json") == [
        web.post("/api/actions/replay", json=asked).json()
    ]
    for word in ("resume", "resume", "pause"):
        one = web.post(f"/api/queues/any/{word}").json()
        assert one.keys() == printed(word, "any", "--json")[0].keys()
    [cancelled] = printed("cancel", "--state", "delayed", "--json")
    nothing = web.post("/api/actions/cancel", json={"filter": {"state": ["delayed"]}}).json()
    assert cancelled.keys() == nothing.keys()
    assert (cancelled["count"], len(cancelled["ids"]), nothing["count"]) == (3, 3, 0)


def test_times_have_one_format_and_durations_a_unit(web: httpx.Client) -> None:
    """ISO 8601, in UTC, with milliseconds and `Z`; an export too."""
    dead = got(web, "/messages", state="dead")["messages"][0]["id"]
    paths = ["/messages", f"/messages/{dead}", "/events", "/running", "/delayed", "/queues", "/workers", "/windows"]
    answers = [got(web, path) for path in (*paths, "/audit")]
    answers += [*printed("export", "--to", "-"), *printed("status", "--json")]
    found = [(key, one) for key, one in keys_and_times(answers) if key in TIMES and one is not None]
    assert {key for key, _ in found} == TIMES
    assert [one for _, one in found if not isinstance(one, dict) and not TIME.fullmatch(one)] == []
    text = json.dumps(answers)
    assert "+00:00" not in text


def test_an_answer_has_the_same_keys_whatever_it_holds(web: httpx.Client) -> None:
    """Null where there is nothing; the description says that each is there."""
    answers = [got(web, path, limit=200)["messages"] for path in ("/messages", "/delayed")]
    assert len({tuple(one) for messages in answers for one in messages}) == 1
    assert len({tuple(one) for one in got(web, "/events")["events"]}) == 1
    assert len({tuple(one) for one in got(web, "/queues")["queues"]}) == 1
    assert len({tuple(one) for one in printed("export", "--to", "-")}) == 1
    assert list(printed("export", "--to", "-")[0]) == list(ExportedMessage.__dataclass_fields__)
    assert list(to_json(Event.of(StatusEvent(event="a.started", state=State.STARTED), Shown()))) == list(
        Event.__dataclass_fields__
    )
    schemas = web.get("/openapi.json").json()["components"]["schemas"]
    for name in ("Message", "MessageDetail", "Attempt", "Event", "Error", "QueueInfo", "WorkerInfo", "ActorRates"):
        assert schemas[name]["required"] == list(schemas[name]["properties"]), name
