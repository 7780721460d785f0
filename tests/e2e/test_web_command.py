"""`worker web`, and the application inside somebody else's, as real processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.project import BIN, WORKER, Project, interrupt
from tests.support.waiting import TIMEOUT, wait_until
from tests.support.web import following
from worker.history.states import MessageState

HOST_APPLICATION = """
from fastapi import FastAPI

from worker.web import create_app

web = create_app()
app = FastAPI(lifespan=web.router.lifespan_context)
app.mount("/jobs", web)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    made.down()


def lines(project: Project) -> list[str]:
    return (project.folder / "worker.log").read_text().splitlines()


def address(project: Project) -> str:
    """Where `worker web --json` says that it listens."""
    wait_until(lambda: any("url" in line for line in lines(project)))
    found: str = json.loads(next(line for line in lines(project) if "url" in line))["url"]
    return found


CROWD = """
import contextlib, resource, socket, sys

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
made = [socket.socket() for _ in range(int(sys.argv[2]))]
for one in made:
    one.connect(("127.0.0.1", int(sys.argv[1])))
    with contextlib.suppress(ConnectionError):  # it was cut off to make room
        one.sendall(sys.argv[3].encode())
print("all have come", flush=True)
sys.stdin.read()
"""

CROWDS = {
    "idle": (1_000, ""),
    "half-sent": (1_000, "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\ntoken=1"),
    "live": (500, "GET /api/events/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
}


def probe(url: httpx.URL) -> float:
    """Seconds that a probe with a connection of its own takes."""
    began = time.monotonic()
    with contextlib.closing(http.client.HTTPConnection(url.host, url.port, timeout=TIMEOUT)) as connection:
        connection.request("GET", "/health/live")
        assert connection.getresponse().read() == b'{"alive":true}'
    return time.monotonic() - began


def slowest_probe(url: httpx.URL, number: int, sent: str) -> float:
    """Seconds that the slowest of all probes takes that are sent while a crowd comes, and after it."""
    program = [sys.executable, "-c", CROWD, str(url.port), str(number), sent]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
        assert crowd.stdout is not None
        took = []
        while not select.select([crowd.stdout], [], [], 0)[0]:
            took.append(probe(url))
        took += [probe(url) for _ in range(100)]
        crowd.communicate()
    return max(took)


@pytest.mark.clock
def test_each_probe_is_answered_within_50_ms_while_crowds_come(project: Project) -> None:
    """Also in the very moment in which a thousand strangers connect; two crowds of three may meet a busy machine."""
    with project.background(WORKER, "web", "--json"):
        url = httpx.URL(address(project))
        probe(url)
        slowest = {name: sorted(slowest_probe(url, *crowd) for _ in range(3)) for name, crowd in CROWDS.items()}
    assert all(took[0] < 0.05 for took in slowest.values()), slowest


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_it_serves_until_it_is_told_to_end(project: Project, how: signal.Signals) -> None:
    """And ends at once, although a browser follows the live tail."""
    with project.background(WORKER, "web", "--json") as web, httpx.Client(base_url=address(project)) as client:
        assert client.get("/health/ready").json() == {"state": "degraded"}
        with following(client) as found:
            next(found)
            began = time.monotonic()
            web.send_signal(how)
            assert list(found) == []
            assert web.wait(TIMEOUT) == 0
        assert time.monotonic() - began < 15
    first, *_, last = (json.loads(line) for line in lines(project) if line.startswith('{"state"'))
    assert last == first | {"state": "stopped"}


def test_it_refuses_to_be_open_to_others_without_a_token(project: Project) -> None:
    """In a line, before it listens; with one it serves."""
    done = project.worker("web", "--host", "0.0.0.0", code=2)
    assert done.stderr.count("\n") == 1
    assert "WORKER_WEB_TOKEN" in done.stderr
    project.environment["WORKER_WEB_TOKEN"] = "more-than-a-secret"
    with project.background(WORKER, "web", "--host", "0.0.0.0", "--json") as web:
        port = address(project).rpartition(":")[2].strip("/")
        assert httpx.get(f"http://127.0.0.1:{port}/api/states").status_code == 401
        known = {"authorization": "Bearer more-than-a-secret"}
        assert httpx.get(f"http://127.0.0.1:{port}/api/states", headers=known).status_code == 200
        assert interrupt(web) == 0


def test_a_port_that_is_taken_is_told_in_a_line(project: Project) -> None:
    """With what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = project.worker("web", "--port", str(taken.getsockname()[1]), code=2)
    assert "choose another" in done.stderr
    assert done.stderr.count("\n") == 1


def test_inside_another_application_it_ends_with_it(project: Project) -> None:
    """Under uvicorn's own command, while a browser follows the live tail."""
    (project.elsewhere / "host.py").write_text(HOST_APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(BIN / "uvicorn"), "host:app", "--port", str(port), "--log-level", "warning"]
    url = f"http://127.0.0.1:{port}/jobs"
    with project.background(*words) as host, httpx.Client(base_url=url) as client:

        def is_up() -> bool:
            try:
                return client.get("/health/live").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_up)
        assert client.get("/api/states").json() == {"states": dict.fromkeys(MessageState, 0)}
        with following(client) as found:
            next(found)
            began = time.monotonic()
            host.send_signal(signal.SIGTERM)
            with contextlib.suppress(httpx.RemoteProtocolError):  # it is cut off
                assert list(found) == []
            host.wait(TIMEOUT)
        assert time.monotonic() - began < 15


def test_after_many_half_sent_bodies_memory_goes_back(project: Project) -> None:
    """Megabytes at a time, and the probe is answered all the while."""
    begun = b"POST /api/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    half_sent = begun + b"Content-Length: 500000\r\n\r\n" + b"x" * 200_000
    with project.background(WORKER, "web", "--json") as web, httpx.Client(base_url=address(project)) as client:
        memory = psutil.Process(web.pid).memory_info
        assert client.get("/api/states").status_code == 200
        before = memory().rss
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                one = socket.create_connection((client.base_url.host, client.base_url.port))
                stack.enter_context(one)
                one.sendall(half_sent)
            wait_until(lambda: memory().rss > before + 30_000_000)
            assert client.get("/health/live").status_code == 200
        wait_until(lambda: memory().rss < before + 15_000_000)
