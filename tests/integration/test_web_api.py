"""Questions and actions as JSON, over a real server, with real messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import httpx
import pytest

from tests.integration.test_questions import Clocked, event_of
from tests.support.brokers import own_broker
from tests.support.waiting import wait_until
from tests.support.web import STATES, serving, some_messages
from worker.history.events import ErrorInfo, State
from worker.operations import actions as broker_actions
from worker.operations.actions import ASK_ABOVE, Preview
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app

Actors = dict[str, dramatiq.Actor[..., Any]]


@pytest.fixture
def known(settings: Settings) -> Settings:
    """Settings with actors that a program declares itself."""
    return settings.model_copy(update={"actors": ("tests.support.web",)})


@pytest.fixture
def actors(known: Settings, valkey: EmbeddedServer) -> Iterator[Actors]:
    with some_messages(known) as declared:
        yield declared


@pytest.fixture
def web(known: Settings, actors: Actors) -> Iterator[httpx.Client]:
    with serving(create_app(known)) as client:
        yield client


def get(web: httpx.Client, path: str, **parameters: Any) -> Any:
    answer = web.get(f"/api{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(web: httpx.Client, path: str, body: object = None, *, code: int = 200) -> Any:
    answer = web.post(f"/api{path}", json=body) if body is not None else web.post(f"/api{path}")
    assert answer.status_code == code, answer.text
    return answer.json()


def ids(web: httpx.Client, **wanted: Any) -> list[str]:
    return [message["id"] for message in get(web, "/messages", **wanted)["messages"]]


def states(web: httpx.Client) -> dict[str, int]:
    """How many messages are in each state that has any."""
    return {state: number for state, number in get(web, "/states")["states"].items() if number}


# ---------------------------------------------------------------------- questions


def test_one_message_is_told_with_every_attempt(web: httpx.Client) -> None:
    """What happened, where, for how long, and of what it died; its arguments and traceback are hidden."""
    [newest, *_] = ids(web, state="dead")
    found = get(web, f"/messages/{newest}")
    assert (found["state"], found["actor"], found["queue"]) == ("dead", "convert", "default")
    assert found["subject"] == {"number": "7"}
    assert found["last_error"] == "ValueError: no 7"
    assert found["arguments"] is None
    [attempt] = found["timeline"]
    assert (attempt["number"], attempt["state"]) == (1, "failed")
    assert attempt["error"] == {"type": "ValueError", "text": "no 7", "traceback": None}
    assert attempt["duration_ms"] > 0
    assert attempt["queued_ms"] >= 0
    assert attempt["worker"]["pid"] > 0
    assert [event["state"] for event in attempt["events"]] == ["started", "failed"]


def test_arguments_and_tracebacks_are_shown_on_request(known: Settings, actors: Actors) -> None:
    """By `WORKER_WEB_SHOW_ARGUMENTS`; in no other answer were they."""
    with serving(create_app(known.model_copy(update={"web_show_arguments": True}))) as web:
        [newest, *_] = ids(web, state="dead")
        found = get(web, f"/messages/{newest}")
        assert found["arguments"] == '7, "fail"'
        assert "in convert" in found["timeline"][0]["error"]["traceback"]
    with serving(create_app(known)) as web:
        for path in ("/messages", f"/messages/{newest}", "/running", "/delayed", "/events", "/audit"):
            answer = web.get(f"/api{path}").text
            assert "Traceback" not in answer
            assert "<script>" not in answer
            assert '\\"fail\\"' not in answer


def test_a_message_is_told_whose_id_has_signs_of_a_path(web: httpx.Client, known: Settings) -> None:
    """On its page and by the API, as others make ids."""
    with own_broker(known) as broker:
        message: dramatiq.Message[Any] = dramatiq.Message(
            queue_name="default", actor_name="x", args=(), kwargs={}, options={}, message_id="orders/2026?x#y"
        )
        broker.enqueue(message)
    for path in ("/api/messages/", "/messages/"):
        assert "orders/2026?x#y" in web.get(f"{path}orders%2F2026%3Fx%23y").raise_for_status().text


def test_messages_are_found_by_anything_in_any_combination(web: httpx.Client) -> None:
    """Newest first, page by page."""
    assert len(ids(web, limit=200)) == sum(STATES.values())
    assert len(ids(web, state=["dead", "skipped"])) == 4
    assert len(ids(web, state="failed")) == 3
    assert len(ids(web, actor="convert", error="ValueError")) == 3
    assert ids(web, queue="slow") == ids(web, state="running") == ids(web, subject="number=8")
    assert ids(web, subject=["number=8", "text=x"]) == []
    assert len(ids(web, since="1h", state="completed")) == 4
    assert ids(web, until="1h") == ids(web, since="2300-01-01T00:00:00Z", state="completed") == []
    paged, cursor = [], None
    while True:
        page = get(web, "/messages", limit=5, **({} if cursor is None else {"cursor": cursor}))
        paged += [message["id"] for message in page["messages"]]
        if (cursor := page["cursor"]) is None:
            break
    assert paged == ids(web, limit=200)
    numbers = [message["number"] for message in get(web, "/messages", limit=200)["messages"]]
    assert numbers == sorted(numbers, reverse=True)


def test_messages_are_counted(web: httpx.Client) -> None:
    """By state, and by any filter."""
    assert states(web) == STATES
    assert get(web, "/messages/count", actor="anything") == {"count": 3, "cursor": None}
    assert get(web, "/messages/count", subject="number=5")["count"] == 1
    assert get(web, "/dead") == {"dead_by_cause": {"ValueError": 3}}


def test_what_runs_is_told_with_its_progress(web: httpx.Client) -> None:
    """Where, since when, how far, and when its worker was last heard of."""

    def running() -> Any:
        [message] = get(web, "/running")["messages"]
        return message if message["progress"] is not None and message["heartbeat"] is not None else None

    wait_until(running)
    message = running()
    assert (message["actor"], message["attempt"], message["subject"]) == ("hold", 1, {"number": "8"})
    assert (message["progress"]["done"], message["progress"]["total"], message["progress"]["text"]) == (1, 2, "half")
    [worker] = get(web, "/workers")["workers"]
    assert {"host": worker["host"], "pid": worker["pid"]} == message["worker"]
    assert worker["alive"]
    assert worker["threads"] == 2
    assert {"any", "default", "slow"} <= set(worker["queues"])
    wait_until(lambda: [one["message_id"] for one in get(web, "/workers")["workers"][0]["attempts"]] == [message["id"]])


def test_what_is_delayed_is_told_in_the_order_in_which_it_is_due(web: httpx.Client) -> None:
    """Page by page, also when the last of a page has gone meanwhile."""
    everything = get(web, "/delayed")["messages"]
    due = [message["since"] for message in everything]
    assert len(due) == 3
    assert due == sorted(due)
    first = get(web, "/delayed", limit=1)
    post(web, "/actions/cancel", {"ids": [first["messages"][0]["id"]]})
    second = get(web, "/delayed", limit=1, cursor=first["cursor"])
    assert second["messages"][0]["id"] == everything[1]["id"]


def test_what_failed_last_is_told_first(web: httpx.Client) -> None:
    """Not what was enqueued last; page by page, on the lists and on the overview."""
    dead = get(web, "/messages", state="dead")["messages"]
    oldest = min(dead, key=lambda one: one["number"])["id"]
    post(web, "/actions/replay", {"ids": [oldest]})
    wait_until(lambda: get(web, f"/messages/{oldest}")["attempts"] == 2 and states(web)["dead"] == 3)
    others = [one["id"] for one in dead if one["id"] != oldest]
    assert ids(web, state="dead") == ids(web, state=["failed", "lost"]) == [oldest, *others]
    assert ids(web, state="dead", limit=1) == [oldest]
    cursor = get(web, "/messages", state="dead", limit=1)["cursor"]
    assert ids(web, state="dead", cursor=cursor) == others
    newest = web.get("/").text.partition("Newest failures")[2]
    assert newest.index(oldest) < min(map(newest.index, others))


def test_causes_that_a_page_leaves_out_are_counted(settings: Settings, client: RedisClient) -> None:
    """With the number of their dead letters, and a way to them."""
    clocked = Clocked(client)
    for number in range(52):
        error = ErrorInfo(f"Error{number:02}", "", "")
        clocked.note((event_of(f"m{number}", State.FAILED, error=error), "dead"))
    with serving(create_app(settings)) as web:
        page = web.get("/dead").text
        assert (page.count('class="panel group"'), "Error49" in page, "Error50" in page) == (50, True, False)
        assert "The 50 most frequent of 52 causes are shown; the others have 2 dead letters." in page


def test_the_overview_tells_for_how_many_attempts_there_is_room(web: httpx.Client) -> None:
    """Those on the loop run beside those on threads: there are never more than there is room for."""
    [worker] = get(web, "/workers")["workers"]
    assert worker["concurrency"] > 0
    assert f"of {worker['threads'] + worker['concurrency']:,} at once" in web.get("/").text


def test_actors_queues_and_windows_are_told(web: httpx.Client) -> None:
    """Rates, shares of errors, percentiles, depths."""
    rates = {one["actor"]: one for one in get(web, "/actors", over="10m")["actors"]}
    assert rates["convert"]["ended"] == {
        "completed": 4,
        "skipped": 1,
        "failed": 3,
        "snoozed": 0,
        "cancelled": 0,
        "lost": 0,
    }
    assert rates["convert"]["error_share"] == pytest.approx(3 / 8)
    assert rates["convert"]["duration"]["p50_ms"] <= rates["convert"]["duration"]["p99_ms"]
    queues = {queue["name"]: queue for queue in get(web, "/queues")["queues"]}
    assert (queues["any"]["delayed"], queues["slow"]["running"], queues["default"]["queued"]) == (3, 1, 0)
    assert sum(window["ended"].get("failed", 0) for window in get(web, "/windows", over="10m")["windows"]) == 3


def test_events_are_found_and_the_tail_goes_on_after_them(web: httpx.Client) -> None:
    """Oldest first."""
    found = get(web, "/events", actor="convert", state="failed", limit=2)
    assert [event["text"] for event in found["events"]] == ["dead letter", "dead letter"]
    assert [event["subject"] for event in found["events"]] == [{"number": 6}, {"number": 7}]
    assert found["position"] != "0-0"


def test_what_is_not_there_is_told_as_such(web: httpx.Client) -> None:
    """A message, a queue, an actor, a path."""
    for method, path, body in [
        ("GET", "/api/messages/none", None),
        ("GET", "/nowhere", None),
        ("POST", "/api/queues/none/pause", None),
        ("POST", "/api/queues/none/resume", None),
        ("POST", "/api/messages", {"actor": "none"}),
    ]:
        answer = web.get(path) if method == "GET" else web.post(path, json=body or {})
        assert answer.status_code == 404, path
        assert answer.json()["error"] == "not_found"


BAD: list[tuple[str, dict[str, Any]]] = [
    ("/messages", {"limit": 0}),
    ("/messages", {"limit": 201}),
    ("/messages", {"cursor": -1}),
    ("/messages", {"cursor": 10**30}),
    ("/messages", {"state": "bad"}),
    ("/messages", {"subject": "x"}),
    ("/messages", {"since": "yesterday"}),
    ("/messages", {"since": "99999999999999999999d"}),
    ("/messages", {"until": ""}),
    ("/events", {"state": "dead"}),
    ("/delayed", {"cursor": "x"}),
    ("/actors", {"over": "1y"}),
    ("/windows", {"over": "0m"}),
    ("/audit", {"limit": "x\0"}),
]


def test_bad_values_are_refused_in_a_line(web: httpx.Client) -> None:
    """That names the parameter."""
    for path, parameters in BAD:
        answer = web.get(f"/api{path}", params=parameters)
        assert answer.status_code == 422, parameters
        detail = answer.json()["detail"]
        assert next(iter(parameters)) in detail
        assert "\n" not in detail


# ---------------------------------------------------------------------- actions


def test_dead_letters_are_replayed_by_id(web: httpx.Client) -> None:
    """The message goes on, the log says who did it, and what was no dead letter is told with its state."""
    [dead, *_] = ids(web, state="dead")
    [done, *_] = ids(web, state="completed")
    outcome = post(web, "/actions/replay", {"ids": [dead, done, "none"]})
    assert outcome == {
        "action": "replay",
        "dry_run": False,
        "count": 1,
        "ids": [dead],
        "refused": {done: "completed", "none": "unknown"},
        "up_to": None,
    }
    [entry, *_] = get(web, "/audit")["actions"]
    assert (entry["action"], entry["by"], entry["count"], entry["ids"]) == ("replay", "web@127.0.0.1", 1, [dead])
    wait_until(lambda: len(get(web, f"/messages/{dead}")["timeline"]) == 2)
    [request] = get(web, f"/messages/{dead}")["requests"]
    assert (request["state"], request["by"]) == ("requested", "web@127.0.0.1")


def test_a_dry_run_changes_nothing(web: httpx.Client) -> None:
    """It counts and lists."""
    found = post(web, "/actions/purge", {"filter": {"error": "ValueError"}, "dry_run": True})
    assert (found["count"], found["ids"]) == (3, ids(web, state="dead"))
    assert states(web) == STATES
    assert get(web, "/audit") == {"actions": []}


def test_more_than_a_few_need_a_second_word(web: httpx.Client, actors: Actors) -> None:
    """By filter and by id; the answer says how many."""
    for number in range(11):
        actors["anything"].send_with_options(args=(number,), delay=3_600_000)
    wanted = ids(web, actor="anything")
    assert len(wanted) == 14
    for targets in ({"filter": {"queue": "any"}}, {"ids": wanted}):
        refused = post(web, "/actions/cancel", targets, code=409)
        assert "14 messages" in refused["detail"]
    assert len(ids(web, state="cancelled")) == 0
    assert post(web, "/actions/cancel", {"filter": {"queue": "any"}, "confirm": True})["count"] == 14
    assert ids(web, state="cancelled") == wanted


def test_ten_messages_are_changed_at_once_and_eleven_are_not(web: httpx.Client, actors: Actors) -> None:
    """The number is that of the command line."""
    for number in range(8):
        actors["anything"].send_with_options(args=(number,), delay=3_600_000)
    wanted = {"filter": {"queue": "any"}}
    assert "11 messages" in post(web, "/actions/cancel", wanted, code=409)["detail"]
    assert post(web, "/actions/cancel", {"ids": ids(web, actor="anything")[:1]})["count"] == 1
    assert post(web, "/actions/cancel", wanted)["count"] == ASK_ABOVE == 10
    assert len(ids(web, state="cancelled")) == 11


def test_without_a_second_word_only_what_was_counted_is_changed(
    web: httpx.Client, actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not what matches the filter by then."""
    real = broker_actions.preview

    def preview(*arguments: Any, **options: Any) -> Preview:
        found = real(*arguments, **options)
        for number in range(20):
            actors["anything"].send_with_options(args=(number,), delay=3_600_000)
        return found

    before = ids(web, actor="anything")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(broker_actions, "preview", preview)
        outcome = post(web, "/actions/cancel", {"filter": {"queue": "any"}})
    assert (outcome["count"], set(outcome["ids"])) == (3, set(before))
    assert ids(web, state="cancelled") == before


def test_delayed_messages_run_now(web: httpx.Client) -> None:
    """On request."""
    assert post(web, "/actions/run_now", {"filter": {"actor": "anything"}})["count"] == 3
    wait_until(lambda: get(web, "/messages/count", actor="anything", state="completed")["count"] == 3)


def test_queues_are_paused_and_resumed(web: httpx.Client) -> None:
    """It is told who did it, and whether that changed anything."""
    assert post(web, "/queues/slow/pause") == {"queue": "slow", "paused": True, "changed": True}
    assert post(web, "/queues/slow/pause")["changed"] is False
    [slow] = [queue for queue in get(web, "/queues")["queues"] if queue["name"] == "slow"]
    assert slow["pause"]["by"] == "web@127.0.0.1"
    assert post(web, "/queues/slow/resume") == {"queue": "slow", "paused": False, "changed": True}


UNCLEAR: list[object] = [
    {},
    {"ids": []},
    {"ids": ["a"], "filter": {}},
    {"filter": {"actr": "convert"}},
    {"filter": {"state": ["none"]}},
    {"ids": ["a"], "confirm": 1},
    {"ids": ["a"], "confrm": True},
    [],
]


def test_orders_that_are_not_clear_are_refused(web: httpx.Client) -> None:
    """What is misspelt is not taken for left out: a filter without it would match more."""
    for body in UNCLEAR:
        post(web, "/actions/purge", body, code=422)
    assert states(web) == STATES


def test_what_cannot_be_read_does_no_harm(web: httpx.Client) -> None:
    """It is refused, or matches nothing."""
    for body in (b'{"ids":["\\ud800"]}', b'{"ids":["\\u0000"]}', b"{", b"\xff", b"[" * 5_000):
        answer = web.post("/api/actions/purge", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {200, 400, 422}, body
    assert states(web) == STATES


# ---------------------------------------------------------------------- enqueueing


def test_messages_are_enqueued(web: httpx.Client) -> None:
    """For an actor by its name, at either address; they run."""
    for path in ("/api/messages", "/messages"):
        answer = web.post(path, json={"actor": "convert", "args": [99], "kwargs": {"text": "new"}})
        assert answer.status_code == 201
        assert (answer.json()["actor"], answer.json()["queue"]) == ("convert", "default")
        [entry, *_] = get(web, "/audit")["actions"]
        assert (entry["action"], entry["by"], entry["target"]) == ("enqueue", "web@127.0.0.1", "convert")
        assert (entry["count"], entry["ids"]) == (1, [answer.json()["message_id"]])
    wait_until(lambda: get(web, "/messages/count", subject="number=99", state="completed")["count"] == 2)


def test_messages_are_enqueued_later_or_once(web: httpx.Client) -> None:
    """With a delay, while no other has the key, or both."""
    later = post(web, "/messages", {"actor": "anything", "delay": "10m"}, code=201)["message_id"]
    assert get(web, f"/messages/{later}")["state"] == "delayed"
    post(web, "/queues/any/pause")
    first, second = (post(web, "/messages", {"actor": "anything", "key": "k"}, code=201) for _ in range(2))
    assert first["message_id"] == second["message_id"]
    assert (first["is_new"], second["is_new"]) == (True, False)
    both = {"actor": "anything", "delay": "10m", "key": "later"}
    first, second = (post(web, "/messages", both, code=201) for _ in range(2))
    assert (first["is_new"], second["is_new"]) == (True, False)
    assert get(web, f"/messages/{first['message_id']}")["state"] == "delayed"


def test_messages_are_enqueued_with_the_options_of_configure(web: httpx.Client) -> None:
    """All at once."""
    body = {"actor": "anything", "key": "all", "ttl": "2h", "until": "start", "at": "2036-11-21T09:00:00+01:00"}
    body |= {"priority": "high", "queue_name": "slow", "message_id": "row 7", "time_limit": "2m", "max_age": "1d"}
    sent = post(web, "/messages", body | {"max_retries": 3, "min_backoff": "1s", "max_backoff": "1m"}, code=201)
    assert sent == {"message_id": "row 7", "actor": "anything", "queue": "slow", "is_new": True}
    found = get(web, "/messages/row%207")
    assert (found["state"], found["priority"]) == ("delayed", "high")
    assert found["since"].startswith("2036-11-21T08:00:")


NOT_TAKEN: list[object] = [
    {"actor": "convert"},
    {"actor": "convert", "args": ["seven"]},
    {"actor": "convert", "args": [1, "x", "more"]},
    {"actor": "convert", "args": [1], "kwargs": {"txt": "x"}},
    {"actor": "anything", "args": ["x" * 300_000]},
    {"actor": "anything", "delay": 600},
    {"actor": "anything", "delay": "600"},
    {"actor": "anything", "delay": "soon"},
    {"actor": "anything", "delay": "10m", "at": "2036-11-21T09:00:00Z"},
    {"actor": "anything", "at": "2036-11-21T09:00:00"},
    {"actor": "anything", "ttl": "10m"},
    {"actor": "anything", "key": "k", "until": "never"},
    {"actor": "anything", "priority": "urgent"},
    {"actor": "anything", "queue_name": "no spaces"},
    {"actor": "anything", "time_limit": "-1s"},
    {"actor": "anything", "arguments": []},
]


def test_what_an_actor_does_not_take_is_refused(web: httpx.Client) -> None:
    """Before anything is stored."""
    for body in NOT_TAKEN:
        assert "\n" not in post(web, "/messages", body, code=422)["detail"]
    assert states(web) == STATES


def test_an_unknown_actor_is_told_with_the_known_ones(web: httpx.Client) -> None:
    """So that the name can be mended."""
    assert "anything, convert, hold" in post(web, "/messages", {"actor": "convrt"}, code=404)["detail"]


def test_without_the_modules_of_the_actors_only_enqueueing_fails(settings: Settings, valkey: EmbeddedServer) -> None:
    """It says what is missing."""
    with serving(create_app(settings.model_copy(update={"actors": ("nowhere.to.be.found",)}))) as web:
        assert "nowhere" in post(web, "/messages", {"actor": "x"}, code=404)["detail"]
        assert states(web) == {}


# ---------------------------------------------------------------------- health, and a server that is away


def test_health_is_told_to_probes_and_to_people(web: httpx.Client) -> None:
    """To people with the reasons."""
    assert web.get("/health/live").json() == {"alive": True}
    assert web.get("/health/ready").json() == {"state": "healthy"}
    assert get(web, "/health") == {"state": "healthy", "reasons": [], "workers": 1}


@pytest.mark.own_server
def test_while_the_server_is_away_everything_says_so(settings: Settings, valkey: EmbeddedServer) -> None:
    """In a line, with 503; the process lives, and goes on when the server is back."""
    settings = settings.model_copy(update={"actors": ("tests.support.web",)})
    app = create_app(settings)
    with serving(app) as web:
        assert states(web) == {}
        assert get(web, "/health")["state"] == "degraded"  # no worker is alive
        assert post(web, "/actions/cancel", {"ids": ["x"]})["count"] == 0
        valkey.stop()
        need_none = {"/health/live", "/api/session", "/api/repositories", "/api/repositories/{name}"}
        for path, methods in app.openapi()["paths"].items():
            if "get" in methods and path not in need_none:
                answer = web.get(path.replace("{message_id}", "x"))
                assert answer.status_code == 503 or answer.json()["state"] == "unreachable", path
        assert post(web, "/actions/cancel", {"ids": ["x"]}, code=503)["error"] == "service_unavailable"
        post(web, "/queues/q/pause", code=503)
        assert web.get("/health/live").status_code == 200
        assert web.get("/health/ready").json() == {"state": "unreachable"}
        valkey.ensure_running()
        assert states(web) == {}
