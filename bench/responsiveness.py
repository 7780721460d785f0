"""Measures whether the server keeps answering under load.

Fifty clients recall and capture against a real server, workers sync two repositories, and the embedder is an endpoint
that takes 100 to 500 ms and now and then stalls. The report has the latencies, above all that of `/health/live`, the
lost requests and notes, the time for which the server's loop was blocked, and its memory.

`--synchronous` calls the endpoint as the systems before this one did: inside the handlers, without a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import uvicorn
from starlette.types import Receive, Scope, Send

from worker.history.query import ask, state_counts
from worker.models.embedder import Vectors
from worker.models.settings import ModelSettings
from worker.recall import recall
from worker.server.connection import connect
from worker.settings import Settings
from worker.web import create_app
from worker.web.server import Server

DIMENSIONS = 256
TAKES = (0.1, 0.5)
STALLS_EVERY = 150
STALLS_FOR = 30.0
PROBE_EVERY = 0.05
PATIENCE = 60.0
WORDS = (
    "read",
    "file",
    "parse",
    "url",
    "open",
    "socket",
    "thread",
    "lock",
    "event",
    "message",
    "queue",
    "json",
    "tree",
)


# ---------------------------------------------------------------------- the endpoint


def serve_endpoint(bound: socket.socket) -> None:
    """A slow embedder: its vectors are made up, and always the same for the same text."""
    chance = np.random.default_rng(1)
    vectors = [json.dumps([round(float(x), 4) for x in chance.standard_normal(DIMENSIONS)]) for _ in range(500)]
    asked = 0

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        nonlocal asked
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        asked += 1
        await asyncio.sleep(STALLS_FOR if asked % STALLS_EVERY == 0 else random.uniform(*TAKES))
        chosen = (vectors[hashlib.sha256(text.encode()).digest()[0]] for text in json.loads(body)["input"])
        data = ",".join(f'{{"index":{number},"embedding":{vector}}}' for number, vector in enumerate(chosen))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f'{{"data":[{data}]}}'.encode()})

    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(answer, log_level="error", lifespan="off")).run(sockets=[bound])


# ---------------------------------------------------------------------- the server


class SynchronousEmbedder:
    """Asks the endpoint as the systems before this one did: all other work of the loop waits."""

    name = "slow"
    dimensions = DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text."""
        url = f"{ModelSettings.in_force().embedder_url}/embeddings"
        answer = httpx.post(url, json={"input": list(texts)}, timeout=PATIENCE)  # noqa: ASYNC210 - the measured mistake
        return np.array([one["embedding"] for one in answer.json()["data"]], np.float32)


def serve_web(bound: socket.socket, *, synchronous: bool) -> None:
    """The web process; at its end it prints the time for which its loop was blocked."""
    if synchronous:

        async def embedder() -> SynchronousEmbedder:
            return SynchronousEmbedder()

        recall.embedder = embedder  # type: ignore[attr-defined]
    app = create_app(Settings())
    app.openapi()
    with contextlib.suppress(KeyboardInterrupt):
        Server(app, lambda: print("up", flush=True)).run(sockets=[bound])
    blocked = app.state.resources.blocked
    print(json.dumps({"seconds": blocked.seconds, "worst": blocked.worst, "where": blocked.where}), flush=True)


# ---------------------------------------------------------------------- the clients


@dataclass(slots=True)
class Seen:
    """The results of the clients."""

    took: dict[str, list[float]] = field(default_factory=lambda: {"recall": [], "capture": [], "live": []})
    failures: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def add_probes(self, probes: dict[str, list[Any]]) -> None:
        """Adds the results of the probe process."""
        self.took["live"] = [one for one in probes["took"] if one is not None]
        self.failures["live: no answer"] += len(probes["took"]) - len(self.took["live"])
        self.memory = probes["memory"]

    async def time(self, what: str, asked: Awaitable[httpx.Response]) -> httpx.Response | None:
        """Awaits an answer, and records its time, or the reason why there was none."""
        began = time.perf_counter()
        try:
            answer = await asked
        except httpx.HTTPError as error:
            self.failures[f"{what}: {type(error).__name__}"] += 1
            return None
        self.took[what].append(time.perf_counter() - began)
        if not answer.is_success:
            self.failures[f"{what}: {answer.status_code}"] += 1
            return None
        return answer


async def client(web: httpx.AsyncClient, seen: Seen, number: int, until: float) -> None:
    """Recalls twice as often as it captures, without a pause."""
    chance = random.Random(number)
    turn = 0
    while time.monotonic() < until:
        words = " ".join(chance.sample(WORDS, 3))
        turn += 1
        if turn % 3 == 0:
            note = {"text": f"note{number}x{turn} {words}"}
            answer = await seen.time("capture", web.post("/capture", json=note))
            if answer is not None:
                seen.notes.append(answer.json()["note_id"])
        else:
            answer = await seen.time("recall", web.post("/recall", json={"question": f"how to {words}"}))
            if answer is not None:
                seen.left_out.update(one["part"] for one in answer.json()["left_out"])


async def attend(url: str, clients: int, seconds: float) -> Seen:
    """Runs all clients at once, for this many seconds."""
    seen = Seen()
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=PATIENCE) as web:
        await asyncio.gather(*(client(web, seen, number, until) for number in range(clients)))
    return seen


def probe(port: int, pid: int) -> None:
    """Probes whether the server lives, in a process of its own, as a supervisor does.

    At its end it prints the times of the answers and the memory of the server; `null` stands for a missing answer.
    """
    process = psutil.Process(pid)
    took: list[float | None] = []
    memory: list[int] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    with contextlib.suppress(KeyboardInterrupt):
        print("up", flush=True)
        while True:
            began = time.perf_counter()
            try:
                connection.request("GET", "/health/live")
                is_live = connection.getresponse().read() and True
            except OSError:
                is_live = False
                connection.close()
            took.append(time.perf_counter() - began if is_live else None)
            memory.append(process.memory_info().rss)
            time.sleep(PROBE_EVERY)
    print(json.dumps({"took": took, "memory": memory}), flush=True)


# ---------------------------------------------------------------------- all of it


@contextlib.contextmanager
def running(
    *words: str, environment: dict[str, str], sockets: Sequence[socket.socket] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs until the block ends."""
    handed = [bound.fileno() for bound in sockets]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True, pass_fds=handed)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(folder: Path, seconds: float, clients: int, *, synchronous: bool) -> dict[str, Any]:
    """Starts everything, runs the clients, and collects the figures."""
    endpoint, web = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    own = {
        "WORKER_DATA_DIR": str(folder / "data"),
        "WORKER_EMBEDDER": "openai",
        "WORKER_EMBEDDER_URL": f"http://127.0.0.1:{endpoint.getsockname()[1]}",
        "WORKER_EMBEDDER_MODEL": "slow",
        "WORKER_EMBEDDER_DIMENSIONS": str(DIMENSIONS),
        "WORKER_EMBEDDER_TIMEOUT": "10s",
        "WORKER_MIN_BACKOFF": "500ms",
        "WORKER_MAX_BACKOFF": "2s",
        "WORKER_MAX_RETRIES": "1000",
        "WORKER_LOG_LEVEL": "error",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")} | own
    worker = str(Path(sys.executable).parent / "worker")
    me = [sys.executable, __file__]
    for path, name in ((sysconfig.get_path("stdlib"), "library"), (sysconfig.get_path("purelib"), "packages")):
        subprocess.run(
            [worker, "repositories", "add", path, "--name", name], env=environment, check=True, capture_output=True
        )
    how = ["--synchronous"] if synchronous else []
    with (
        running(*me, "--endpoint", str(endpoint.fileno()), environment=environment, sockets=[endpoint]),
        running(worker, "up", "--json", environment=environment) as workers,
        running(*me, "--web", str(web.fileno()), *how, environment=environment, sockets=[web]) as server,
    ):
        assert workers.stdout is not None
        assert server.stdout is not None
        workers.stdout.readline()
        server.stdout.readline()
        subprocess.run([worker, "repositories", "sync"], env=environment, check=True, capture_output=True)
        url = f"http://127.0.0.1:{web.getsockname()[1]}"
        with running(*me, "--probe", str(web.getsockname()[1]), str(server.pid), environment=environment) as prober:
            assert prober.stdout is not None
            prober.stdout.readline()
            seen = asyncio.run(attend(url, clients, seconds))
            prober.send_signal(signal.SIGINT)
            seen.add_probes(json.loads(prober.stdout.readline()))
        lost = _lost(Settings(data_dir=folder / "data"), len(seen.notes))
        server.send_signal(signal.SIGINT)
        blocked = json.loads(server.stdout.readlines()[-1])
    subprocess.run([worker, "down"], env=environment, check=True, capture_output=True)
    return _figures(seen, lost, blocked)


def _lost(settings: Settings, notes: int) -> dict[str, int]:
    """Waits until every accepted note is in the index, and counts the missing ones."""
    client = connect(settings)
    deadline = time.monotonic() + PATIENCE
    completed = 0
    while time.monotonic() < deadline:
        states = ask(client, state_counts())
        completed = states.get("completed", 0)
        if completed >= notes:
            break
        time.sleep(1)
    states = ask(client, state_counts())
    client.close()
    return {"notes": notes, "not kept in time": max(0, notes - completed), "dead letters": states.get("dead", 0)}


def _figures(seen: Seen, lost: dict[str, int], blocked: dict[str, Any]) -> dict[str, Any]:
    def milliseconds(took: list[float]) -> dict[str, float]:
        shares = {"p50": 50, "p99": 99, "worst": 100}
        return {"count": len(took)} | {
            name: round(1000 * float(np.percentile(took, at)), 1) for name, at in shares.items()
        }

    quarter = max(1, len(seen.memory) // 4)
    return {
        "milliseconds": {what: milliseconds(took) for what, took in seen.took.items() if took},
        "requests without an answer": dict(+seen.failures),
        "answers that went without": dict(seen.left_out),
        "lost": lost,
        "loop blocked for more than 100 ms": blocked,
        "memory in MB": {
            "second quarter": round(float(np.median(seen.memory[quarter : 2 * quarter] or [0])) / 2**20),
            "last quarter": round(float(np.median(seen.memory[-quarter:])) / 2**20),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--synchronous", action="store_true", help="call the endpoint inside the handlers")
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    parser.add_argument("--endpoint", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--web", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--probe", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.endpoint is not None:
        serve_endpoint(socket.socket(fileno=options.endpoint))
        return
    if options.probe is not None:
        probe(*options.probe)
        return
    if options.web is not None:
        serve_web(socket.socket(fileno=options.web), synchronous=options.synchronous)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.seconds, options.clients, synchronous=options.synchronous)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
