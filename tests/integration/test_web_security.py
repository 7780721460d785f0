"""Who is let in, what other sites can make a browser do, and what the answers allow."""

from __future__ import annotations

import asyncio
import hmac
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from starlette.responses import StreamingResponse

from tests.support.waiting import wait_until
from tests.support.web import following, serving
from worker.errors import ConfigurationError
from worker.history.overview import audit_log
from worker.history.query import ask
from worker.history.states import MessageState
from worker.operations.audit import audit
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.server.scripts import Script
from worker.settings import Settings
from worker.web import create_app, guesses, streaming, tokens
from worker.web.server import check_address

TOKEN, READ_TOKEN = "full-of-many-secrets", "only-to-read-with"
ACTION = ("/api/actions/cancel", {"ids": ["nobody"]})


@pytest.fixture
def web(settings: Settings, valkey: EmbeddedServer) -> Iterator[httpx.Client]:
    """Without a token."""
    with serving(create_app(settings)) as client:
        yield client


@pytest.fixture
def guarded(settings: Settings, valkey: EmbeddedServer) -> Iterator[httpx.Client]:
    """With both tokens."""
    given = {"web_token": SecretStr(TOKEN), "web_read_token": SecretStr(READ_TOKEN)}
    with serving(create_app(settings.model_copy(update=given))) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def act(web: httpx.Client, **headers: Any) -> httpx.Response:
    path, body = ACTION
    return web.post(path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def cookie_of(web: httpx.Client) -> str:
    """The name of the session's cookie in this browser."""
    [name] = [one for one in web.cookies if one.startswith(tokens.COOKIE)]
    return name


def log_in(web: httpx.Client, token: str) -> httpx.Response:
    return web.post("/login", data={"token": token, "next": "/api/states"})


# ---------------------------------------------------------------------- without a token


def test_on_this_machine_everything_is_allowed_without_a_token(web: httpx.Client) -> None:
    """To programs; who acts is named with the address."""
    assert web.get("/api/session").json()["name"] == "web@127.0.0.1"
    assert act(web).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8020",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "",
        "a@localhost",
        "x/localhost",
        "[::1",
        "]",
    ],
)
def test_a_name_that_is_not_ours_is_refused(web: httpx.Client, host: str) -> None:
    """Another site may have made it point here."""
    answer = web.get("/api/states", headers={"host": host})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "detail"}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8020", "127.9.9.9"])
def test_names_of_this_machine_are_ours(web: httpx.Client, host: str) -> None:
    """With and without a port."""
    assert web.get("/api/states", headers={"host": host}).status_code == 200


def test_names_can_be_allowed_to_those_with_a_token(settings: Settings, valkey: EmbeddedServer) -> None:
    """By `WORKER_WEB_ALLOWED_HOSTS`; without a token a name that is not this machine's is refused, with the remedy."""
    allowed = settings.model_copy(update={"web_allowed_hosts": ("jobs.example",), "web_host": "ops.example"})
    with serving(create_app(allowed.model_copy(update={"web_token": SecretStr(TOKEN)}))) as web:
        assert web.get("/api/states", headers={"host": "jobs.example", **bearer(TOKEN)}).status_code == 200
        assert web.get("/api/states", headers={"host": "jobs.example.evil", **bearer(TOKEN)}).status_code == 400
    with serving(create_app(allowed)) as web:
        for name in ("jobs.example", "ops.example", "0.0.0.0", "10.0.0.7"):
            answer = web.get("/api/states", headers={"host": name})
            assert answer.status_code == 400
            assert "WORKER_WEB_TOKEN" in answer.json()["detail"]
        assert web.get("/health/live", headers={"host": "jobs.example"}).status_code == 200


THROUGH_A_PROXY = [
    *("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"),
    *("X-Forwarded-Server", "X-Forwarded", "X-Forwarded-Anything", "Via", "CF-Connecting-IP", "CF-Ray", "CDN-Loop"),
    *("True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "Fastly-Client-IP", "X-Original-Host", "X-Envoy-Peer"),
    *("X-Amzn-Trace-Id", "X-Azure-ClientIP", "Tailscale-User-Login", "X-Varnish", "X-Scheme"),
    *(
        "Fly-Client-IP",
        "DO-Connecting-IP",
        "X-NF-Client-Connection-IP",
        "X-Vercel-Id",
        "X-Sucuri-ClientIP",
        "X-Forward-For",
    ),
    *("Akamai-Origin-Hop", "Surrogate-Capability", "X-BlueCoat-Via", "Max-Forwards", "X_Forwarded_For"),
]


@pytest.mark.parametrize("header", THROUGH_A_PROXY)
def test_without_a_token_nobody_is_heard_through_a_proxy(web: httpx.Client, header: str) -> None:
    """It would stand for others, who are not on this machine; the refusal names the header, and what to set."""
    for value in ("127.0.0.1", ""):
        answer = web.get("/api/states", headers={header: value})
        assert answer.status_code == 403
        assert header.lower() in answer.json()["detail"]
        assert "set WORKER_WEB_TOKEN" in answer.json()["detail"]


def test_pages_of_another_site_are_answered_nothing(web: httpx.Client) -> None:
    """They could hold all live tails open; a person may follow a link from there, and programs are no site."""
    for site in ("cross-site", "same-site"):
        for path in ("/api/events/live", "/api/states", "/metrics", "/"):
            for mode in ("cors", "no-cors"):
                there = {"sec-fetch-site": site, "sec-fetch-mode": mode}
                assert web.get(path, headers=there).status_code == 403
        assert web.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code == 200
    assert (
        web.get("/api/states", headers={"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}).status_code == 200
    )


def test_a_proxy_that_adds_nothing_is_known_by_its_way_of_speaking(web: httpx.Client) -> None:
    """By HTTP/1.0, or by a browser whose page has another host than the one that is asked."""
    with socket.create_connection((web.base_url.host, web.base_url.port or 80)) as bare:
        bare.sendall(f"GET /api/states HTTP/1.0\r\nHost: {web.base_url.netloc.decode()}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: bare.recv(65_536), b""))
    assert b" 403 " in answer.partition(b"\r\n")[0]
    assert b"set WORKER_WEB_TOKEN" in answer
    there = {"sec-fetch-site": "same-origin", "referer": "https://jobs.example/messages"}
    assert web.get("/api/states", headers=there).status_code == 403
    here = {"sec-fetch-site": "same-origin", "referer": str(web.base_url)}
    assert web.get("/api/states", headers=here).status_code == 200


@pytest.mark.parametrize(
    ("client", "is_heard"),
    [
        (("127.0.0.1", 1), True),
        (("127.8.8.8", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (("::ffff:10.0.0.7", 1), False),
        (("2001:db8::1", 1), False),
        (("testclient", 1), False),
        (None, False),
    ],
)
async def test_without_a_token_only_loopback_is_heard(
    settings: Settings, valkey: EmbeddedServer, client: tuple[str, int] | None, is_heard: bool
) -> None:
    """In each way of writing it; a visitor without an address, as behind a proxy on a Unix socket, is not."""
    transport = httpx.ASGITransport(create_app(settings), client=client)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as there:
        assert (await there.get("/openapi.json")).status_code == (200 if is_heard else 403)


async def test_without_a_token_nobody_is_heard_from_another_machine(settings: Settings, valkey: EmbeddedServer) -> None:
    """Also where an application that is mounted listens everywhere."""
    transport = httpx.ASGITransport(create_app(settings), client=("10.0.0.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as far:
        answer = await far.get("/api/states")
        assert answer.status_code == 403
        assert "WORKER_WEB_TOKEN" in answer.json()["detail"]
        assert (await far.get("/health/live")).status_code == 200


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://["},
    {"origin": "http://127.0.0.1:1"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "same-origin"},  # without the page's own token
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_site_cannot_act_through_a_browser(web: httpx.Client, headers: dict[str, str]) -> None:
    """Wherever the browser says the request comes from, without the page's own token."""
    assert act(web, **headers).status_code == 403
    assert (
        web.post("/api/queues/default/pause", headers={k.replace("_", "-"): v for k, v in headers.items()}).status_code
        == 403
    )


def test_our_own_pages_can_act(web: httpx.Client) -> None:
    """They know the token, which no other site can read."""
    known = web.get("/api/session").json()["csrf_token"]
    origin = str(web.base_url).rstrip("/")
    assert act(web, origin=origin, sec_fetch_site="same-origin", x_csrf_token=known).status_code == 200
    assert act(web, origin=origin, sec_fetch_site="same-origin", x_csrf_token="0" * 64).status_code == 403
    assert act(web, origin="http://evil.example", x_csrf_token=known).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_what_is_not_said_to_be_json_is_refused(web: httpx.Client, kind: str | None) -> None:
    """A page of another site can send these without being asked whether it may."""
    headers = {} if kind is None else {"content-type": kind}
    answer = web.post(ACTION[0], content=b'{"ids":["nobody"]}', headers=headers)
    assert answer.status_code == 415


def test_other_sites_may_not_read(web: httpx.Client) -> None:
    """No answer says that they may."""
    answer = web.get("/api/states", headers={"origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


# ---------------------------------------------------------------------- with tokens

NEED_A_TOKEN = [
    "/api/states",
    "/api/session",
    "/api/events/live",
    "/metrics",
    "/openapi.json",
    "/api/health",
    "/nowhere",
]


@pytest.mark.parametrize("path", NEED_A_TOKEN)
def test_with_a_token_set_nothing_is_shown_without_it(guarded: httpx.Client, path: str) -> None:
    """Nor with another."""
    assert guarded.get(path).status_code == 401
    for wrong in ("Bearer", "Bearer full", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN):
        assert guarded.get(path, headers={"authorization": wrong}).status_code == 401
    assert guarded.get(path, headers={"cookie": f"{tokens.COOKIE}={TOKEN}"}).status_code == 401


def test_probes_need_no_token(guarded: httpx.Client) -> None:
    """They say nothing that is worth hiding, and are asked under any name."""
    assert guarded.get("/health/live", headers={"host": "10.1.2.3"}).json() == {"alive": True}
    assert set(guarded.get("/health/ready", headers={"host": "pod"}).json()) == {"state"}


def test_who_shows_a_token_may_read_or_act_as_it_says(guarded: httpx.Client) -> None:
    """Without more: no other site can make a browser show it."""
    assert guarded.get("/metrics", headers=bearer(READ_TOKEN)).status_code == 200
    assert act(guarded, **bearer(TOKEN), origin="http://elsewhere.example").status_code == 200
    refused = act(guarded, **bearer(READ_TOKEN))
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
    assert guarded.get("/api/session", headers=bearer(TOKEN)).json()["name"] == "full token@127.0.0.1"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(
            ("POST", f"/api/actions/{name}", {"ids": ["m"], "dry_run": True})
            for name in ("replay", "purge", "cancel", "run_now")
        ),
        ("POST", "/api/queues/default/pause", None),
        ("POST", "/api/queues/default/resume", None),
        ("POST", "/api/messages", {"actor": "x"}),
        ("POST", "/messages", {"actor": "x"}),
        ("POST", "/api/capture", {"text": "x"}),
        ("POST", "/capture", {"text": "x"}),
        ("POST", "/api/repositories/x/sync", None),
    ],
)
def test_who_may_only_read_cannot_act(guarded: httpx.Client, method: str, path: str, body: object) -> None:
    """By any action, neither with the token nor with a session for it."""
    content: dict[str, Any] = {} if body is None else {"json": body}
    assert guarded.request(method, path, headers=bearer(READ_TOKEN), **content).status_code == 403
    assert log_in(guarded, READ_TOKEN).status_code == 303
    known = guarded.get("/api/session").json()
    assert known["may_act"] is False
    answer = guarded.request(method, path, headers={"x-csrf-token": known["csrf_token"]}, **content)
    assert answer.status_code == 403


def test_every_route_that_changes_something_is_among_those_tested(settings: Settings) -> None:
    """So that a new one is not forgotten."""
    described = create_app(settings).openapi()["paths"]
    assert {path for path, methods in described.items() if set(methods) - {"get"}} == {
        "/api/actions/{action}",
        "/api/queues/{queue}/pause",
        "/api/queues/{queue}/resume",
        "/api/messages",
        "/api/capture",
        "/api/repositories/{name}/sync",
        "/api/recall",  # it only asks, by a body: who may read may
    }


def test_a_session_is_a_cookie_that_only_this_site_gets(guarded: httpx.Client) -> None:
    """It is not the token, no script can read it, and it ends."""
    answer = log_in(guarded, TOKEN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/api/states")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={tokens.SESSION_SECONDS}"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    assert guarded.get("/api/states").status_code == 200


def test_behind_a_proxy_that_speaks_https_the_cookie_is_for_https_only(guarded: httpx.Client) -> None:
    """As the proxy says."""
    answer = guarded.post("/login", data={"token": TOKEN}, headers={"x-forwarded-proto": "https"})
    assert "Secure" in answer.headers["set-cookie"]


def test_a_session_acts_only_from_our_own_pages(guarded: httpx.Client) -> None:
    """Also where a browser does not say where a request comes from."""
    log_in(guarded, TOKEN)
    assert act(guarded).status_code == 403
    known = guarded.get("/api/session").json()["csrf_token"]
    assert act(guarded, x_csrf_token=known).status_code == 200
    assert act(guarded, x_csrf_token=known, origin="http://evil.example").status_code == 403


def test_another_session_has_another_proof(guarded: httpx.Client) -> None:
    """What one page knows is no good for somebody else's session."""
    log_in(guarded, READ_TOKEN)
    foreign = guarded.get("/api/session").json()["csrf_token"]
    log_in(guarded, TOKEN)
    assert act(guarded, x_csrf_token=foreign).status_code == 403


def test_a_session_ends(guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over, and in a browser that logs out."""
    with monkeypatch.context() as earlier:
        earlier.setattr(tokens, "SESSION_SECONDS", -1)
        cookie = log_in(guarded, TOKEN).headers["set-cookie"].partition(";")[0]
    assert guarded.get("/api/states", headers={"cookie": cookie}).status_code == 401
    log_in(guarded, TOKEN)
    log_out(guarded)
    assert guarded.get("/api/states").status_code == 401


def log_out(web: httpx.Client) -> str:
    """The cookie that the session had, as it is sent."""
    name = cookie_of(web)
    cookie = f"{name}={web.cookies[name]}"
    known = web.get("/api/session").json()["csrf_token"]
    assert web.post("/logout", headers={"x-csrf-token": known}).status_code == 303
    assert not [one for one in web.cookies if one.startswith(tokens.COOKIE)]
    return cookie


def test_after_a_log_out_a_copy_of_the_cookie_is_good_for_nothing(
    settings: Settings, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every web process, also one that starts later, and for the live tail that it had opened."""
    monkeypatch.setattr(streaming, "HEARTBEAT", 0.05)
    guarded = settings.model_copy(update={"web_token": SecretStr(TOKEN)})
    with serving(create_app(guarded)) as first, serving(create_app(guarded)) as second:
        host = {"host": first.base_url.netloc.decode()}
        log_in(first, TOKEN)
        other = dict(first.cookies)
        with following(first) as tail:
            next(tail)
            copied = {"cookie": log_out(first), **host}
            assert [one for one in tail if one.kind == "message"] == []
        for web in (first, second):
            assert web.get("/api/states", headers=copied).status_code == 401
        log_in(first, TOKEN)
        assert dict(first.cookies) != other
        new = {"cookie": f"{cookie_of(first)}={first.cookies[cookie_of(first)]}"}
        assert second.get("/api/states", headers=new | host).status_code == 200
    with serving(create_app(guarded)) as later:
        assert later.get("/api/states", headers=copied).status_code == 401


def test_a_new_session_ends_the_one_before(guarded: httpx.Client) -> None:
    """In the same browser: nobody could log it out any more."""
    log_in(guarded, READ_TOKEN)
    before = {"cookie": f"{cookie_of(guarded)}={guarded.cookies[cookie_of(guarded)]}"}
    log_in(guarded, TOKEN)
    assert guarded.get("/api/states").status_code == 200
    guarded.cookies.clear()
    assert guarded.get("/api/states", headers=before).status_code == 401


@pytest.mark.own_server
def test_without_the_message_server_a_log_out_ends_the_session_here(settings: Settings, valkey: EmbeddedServer) -> None:
    """And a session that nobody ended stays good."""
    guarded = settings.model_copy(update={"web_token": SecretStr(TOKEN)})
    with serving(create_app(guarded)) as web:
        log_in(web, TOKEN)
        assert web.get("/api/states").status_code == 200
        valkey.stop()
        assert web.get("/api/session").status_code == 200
        copied = {"cookie": log_out(web)}
        assert web.get("/openapi.json", headers=copied).status_code == 401


def test_two_dashboards_on_one_host_do_not_log_each_other_out(settings: Settings, valkey: EmbeddedServer) -> None:
    """A browser sends its cookies to every port: with the same tokens or others, each has a session of its own."""
    for other in (TOKEN, "another-secret-of-16"):
        of_first, of_second = (settings.model_copy(update={"web_token": SecretStr(one)}) for one in (TOKEN, other))
        with serving(create_app(of_first)) as first, serving(create_app(of_second)) as second:
            second.cookies.jar = first.cookies.jar
            log_in(first, TOKEN)
            log_in(second, other)
            assert len(first.cookies) == 2
            assert [web.get("/api/states").status_code for web in (first, second)] == [200, 200]
            known = first.get("/api/session").json()["csrf_token"]
            assert first.post("/logout", headers={"x-csrf-token": known}).status_code == 303
            assert [web.get("/api/states").status_code for web in (first, second)] == [401, 200]


def test_dashboards_below_paths_and_of_namespaces_have_cookies_of_their_own(settings: Settings) -> None:
    """And a session of one namespace is none of another; the processes of one dashboard know each other's."""
    known = settings.model_copy(update={"web_token": SecretStr(TOKEN)})
    ours, again, theirs = (
        tokens.Keys(known.model_copy(update={"namespace": name})) for name in ("ours", "ours", "theirs")
    )
    names = [keys.cookie_of(port, root) for keys in (ours, theirs) for port in ("80", "81") for root in ("", "/a")]
    assert len(set(names)) == len(names)
    assert ours.cookie_of("80", "/a") == again.cookie_of("80", "/a")
    session = ours.new_session("full")
    assert again.read_session(session) is not None
    assert theirs.read_session(session) is None


# ---------------------------------------------------------------------- wrong tokens


@pytest.mark.parametrize("how", ["form", "json", "header"])
def test_wrong_tokens_are_answered_later_each_time_and_are_in_the_audit_log(
    guarded: httpx.Client, client: RedisClient, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The first two at once; the log names the address and the way, and never the token."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(guesses, "sleep", wait)
    for number in range(9):
        wrong = f"wrong-{number}"
        if how == "header":
            answer = guarded.get("/api/states", headers=bearer(wrong))
        else:
            answer = guarded.post("/login", **{"data" if how == "form" else "json": {"token": wrong}})  # type: ignore[arg-type]
        assert answer.status_code == (303 if how == "form" else 401)
    assert waited == [0, 0, 0.25, 0.5, 1, 2, 4, guesses.LONGEST, guesses.LONGEST]
    entries = ask(client, audit_log())
    assert [(entry.action, entry.by, entry.count) for entry in entries] == [
        ("log_in_refused", "nobody@127.0.0.1", count) for count in (4, 2, 1, 1)
    ]
    assert "wrong" not in "".join(entry.target for entry in entries)
    assert guarded.get("/api/states", headers=bearer(TOKEN)).status_code == 200
    assert waited[9:] == []


def test_of_many_guesses_at_once_few_are_read(guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one address; the others are told when to come back, and sessions go on."""
    log_in(guarded, TOKEN)
    answered = threading.Event()

    async def wait(seconds: float) -> None:
        await asyncio.to_thread(answered.wait)

    monkeypatch.setattr(guesses, "sleep", wait)
    with ThreadPoolExecutor(20) as pool:

        def guess(number: int) -> httpx.Response:
            return httpx.get(f"{guarded.base_url}/api/states", headers=bearer(f"wrong-{number}"), timeout=60)

        found = [pool.submit(guess, number) for number in range(20)]
        wait_until(lambda: sum(one.done() for one in found) == 20 - guesses.AT_ONCE)
        assert guarded.get("/api/states").status_code == 200
        answered.set()
        codes = sorted(one.result().status_code for one in found)
    assert codes == [401] * guesses.AT_ONCE + [429] * (20 - guesses.AT_ONCE)
    refused = [one.result() for one in found if one.result().status_code == 429]
    assert {one.headers["retry-after"] for one in refused} == {"8"}


def test_who_guesses_cannot_push_what_people_did_out_of_the_audit_log(client: RedisClient) -> None:
    """However many addresses take part."""
    audit(client, "enqueue", "convert", ["42"], by="ann")
    write = Script("write_audit")
    for _ in range(12):
        write.run_many(client, [["x", "log_in_refused", "a form", 1, 0] for _ in range(1_000)])
    entries = ask(client, audit_log(20_000))
    assert len(entries) < 2_000
    assert [entry.by for entry in entries if entry.action == "enqueue"] == ["ann"]
    assert [entry.time for entry in entries] == sorted((entry.time for entry in entries), reverse=True)


def test_a_form_is_small(guarded: httpx.Client) -> None:
    """Anybody may send one."""
    assert guarded.post("/login", content=b"token=" + b"x" * 20_000).status_code == 413
    parts = iter([b"token=", b"x" * 20_000])
    assert guarded.post("/login", content=parts).status_code == 413


def test_a_session_that_was_changed_is_none(guarded: httpx.Client) -> None:
    """One that may read cannot be made one that may act."""
    log_in(guarded, READ_TOKEN)
    name = cookie_of(guarded)
    good = guarded.cookies[name]
    guarded.cookies.clear()
    for bad in (good.replace("read", "full", 1), good[:-1] + ("0" if good[-1] != "0" else "1"), "..", "a.b.c.d", "é"):
        answer = guarded.get("/api/states", headers={b"cookie": f"{name}={bad}".encode()})
        assert answer.status_code == 401


def test_another_token_ends_all_sessions(settings: Settings) -> None:
    """A session is signed with the tokens."""
    first, second = (tokens.Keys(settings.model_copy(update={"web_token": SecretStr(name)})) for name in "ab")
    session = first.new_session("full")
    assert first.read_session(session) is not None
    assert second.read_session(session) is None


def test_a_wrong_token_gives_no_session(guarded: httpx.Client) -> None:
    """A form is sent back to the page, a program is told."""
    answer = log_in(guarded, "wrong")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?failed=1")
    assert "set-cookie" not in answer.headers
    assert guarded.post("/login", json={"token": "wrong"}).status_code == 401
    assert guarded.post("/login", json={"token": TOKEN}).status_code == 204
    for body in (b"[]", b"{", b'{"token":1}', b'{"token":"\\ud800"}', b"[" * 9_999):
        assert guarded.post("/login", content=body, headers={"content-type": "application/json"}).status_code == 401


def test_another_site_cannot_log_a_browser_in(guarded: httpx.Client) -> None:
    """Into a session that it chose."""
    answer = guarded.post("/login", data={"token": TOKEN}, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("there", ["https://evil.example", "//evil.example", "/\\evil.example", "x", "/a\nb", ""])
def test_after_logging_in_nobody_is_sent_elsewhere(guarded: httpx.Client, there: str) -> None:
    """A link to the page may name any place."""
    answer = guarded.post("/login", data={"token": TOKEN, "next": there})
    assert answer.headers["location"] == "/"


def test_who_wants_a_page_is_sent_to_the_form(guarded: httpx.Client) -> None:
    """And from there back."""
    answer = guarded.get("/messages?state=dead", headers={"accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/messages%3Fstate%3Ddead")


def test_all_tokens_are_compared_in_constant_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with all of what was given, and all of them always."""
    compared: list[tuple[int, int]] = []
    real: Callable[[bytes, bytes], bool] = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    keys = tokens.Keys(settings.model_copy(update={"web_token": SecretStr(TOKEN), "web_read_token": SecretStr("r")}))
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert [keys.role_of(given) for given in (TOKEN.encode(), b"r", b"", b"x" * 99)] == ["full", "read", None, None]
    assert compared == [(32, 32)] * 8


def test_a_token_may_hold_any_character(settings: Settings, valkey: EmbeddedServer) -> None:
    """As it is written in the settings, in UTF-8."""
    with serving(create_app(settings.model_copy(update={"web_token": SecretStr("geheim-Ω")}))) as web:
        assert web.get("/api/states", headers={b"authorization": "Bearer geheim-Ω".encode()}).status_code == 200
        assert web.get("/api/states", headers={b"authorization": b"Bearer geheim-\xff"}).status_code == 401
        assert web.post("/login", data={"token": "geheim-Ω"}).headers["location"] == "/"


# ---------------------------------------------------------------------- bounds and headers


def test_requests_are_bounded(settings: Settings, valkey: EmbeddedServer) -> None:
    """In what they say of their length, and in what they send without saying."""
    with serving(create_app(settings.model_copy(update={"max_message_bytes": 1_024}))) as web:
        body = b'{"ids":["' + b"x" * 70_000 + b'"]}'
        headers = {"content-type": "application/json"}
        assert web.post(ACTION[0], content=body, headers=headers).status_code == 413
        chunks = (body[start : start + 1_000] for start in range(0, len(body), 1_000))
        assert web.post(ACTION[0], content=chunks, headers=headers).status_code == 413


@pytest.mark.parametrize("path", ["/api/states", "/nowhere", "/static/nothing", "/health/live", "/openapi.json"])
def test_every_answer_says_what_browsers_may_do_with_it(web: httpx.Client, path: str) -> None:
    """Errors too."""
    headers = web.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert ("no-store" in headers["cache-control"]) == (not path.startswith("/static"))


def test_an_error_that_nobody_expected_is_answered_like_any_other_and_logged(
    settings: Settings, valkey: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With the same headers and without details, which are in the log with their traceback."""
    app = create_app(settings)

    async def break_down() -> None:
        raise LookupError("hunter2")

    app.add_api_route("/broken", break_down)
    app.router.routes.insert(0, app.router.routes.pop())
    with serving(app) as web:
        answer = web.get("/broken")
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "internal_server_error",
        "detail": "an error here: see the log of the web process",
    }
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    [told] = [one.getMessage() for one in caplog.records if "a request failed" in one.getMessage()]
    assert "in break_down" in told
    assert "LookupError: hunter2" in told


def test_an_answer_that_breaks_off_is_not_answered_twice(
    settings: Settings, valkey: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asked sees that it is not whole, and the log says why."""
    app = create_app(settings)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"the beginning"
        raise LookupError("hunter2")

    async def break_off() -> StreamingResponse:
        return StreamingResponse(chunks())

    app.add_api_route("/broken", break_off)
    app.router.routes.insert(0, app.router.routes.pop())
    with serving(app) as web, pytest.raises(httpx.RemoteProtocolError):
        web.get("/broken")
    [told] = [one.getMessage() for one in caplog.records if "a request failed" in one.getMessage()]
    assert "LookupError: hunter2" in told


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_no_page_comes_with_scripts_of_others(web: httpx.Client, path: str) -> None:
    """FastAPI's own would."""
    assert web.get(path).status_code == 404


# ---------------------------------------------------------------------- listening


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "jobs.example", ""])
def test_without_a_token_it_does_not_listen_where_others_are(settings: Settings, host: str) -> None:
    """It says what to do."""
    with pytest.raises(ConfigurationError, match="WORKER_WEB_TOKEN"):
        check_address(settings.model_copy(update={"web_host": host}))
    check_address(settings.model_copy(update={"web_host": host, "web_token": SecretStr(TOKEN)}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3"])
def test_on_this_machine_it_listens_without_a_token(settings: Settings, host: str) -> None:
    """By any of its names."""
    check_address(settings.model_copy(update={"web_host": host}))


@pytest.mark.parametrize("values", [{"web_read_token": TOKEN}, {"web_read_token": TOKEN, "web_token": TOKEN}], ids=str)
def test_a_read_only_token_stands_beside_another(clean_environment: None, values: dict[str, Any]) -> None:
    """Alone it would leave nobody who may act, and the same value would let readers act."""
    with pytest.raises(ValidationError, match="WORKER_WEB_READ_TOKEN needs WORKER_WEB_TOKEN"):
        Settings(**values)


# ---------------------------------------------------------------------- mounted


def test_mounted_below_a_path_it_works_as_by_itself(settings: Settings, valkey: EmbeddedServer) -> None:
    """Questions, actions, probes, sessions; the application that has it begins and ends with it."""
    own = create_app(settings.model_copy(update={"web_token": SecretStr(TOKEN)}))
    host = FastAPI(lifespan=own.router.lifespan_context)
    host.mount("/ops/worker", own)
    host.state.resources = own.state.resources
    with serving(host) as web:
        assert web.get("/ops/worker/health/ready").status_code == 200
        assert web.get("/ops/worker/api/states").status_code == 401
        answer = web.post("/ops/worker/login", data={"token": TOKEN})
        assert answer.headers["location"] == "/ops/worker/"
        assert "Path=/ops/worker/" in answer.headers["set-cookie"]
        assert web.get("/ops/worker/api/states").json() == {"states": dict.fromkeys(MessageState, 0)}
        assert web.get("/ops/worker/openapi.json").json()["servers"] == [{"url": "/ops/worker"}]
        refused = web.get("/ops/worker/messages", headers={"accept": "text/html", "cookie": ""})
        assert refused.headers["location"].startswith("/ops/worker/login?next=/ops/worker/messages")
        known = web.get("/ops/worker/api/session").json()["csrf_token"]
        answer = web.post("/ops/worker" + ACTION[0], json=ACTION[1], headers={"x-csrf-token": known})
        assert answer.json()["refused"] == {"nobody": "unknown"}
