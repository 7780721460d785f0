"""The real `dramatiq-gevent` command: loops and blocking calls in real threads, beside greenlets that go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import pytest

from tests.integration.test_worker_process import final, wait_until_ready
from tests.support.project import BIN, ROOT, Project
from tests.support.waiting import TIMEOUT, wait_until
from worker import run_async_in_new_loop
from worker.conversations.importing import import_conversation
from worker.history.events import State, StatusEvent
from worker.history.filters import EventFilter
from worker.history.query import read_events
from worker.settings import Settings

pytest.importorskip("gevent", reason="the extra gevent is not installed")
LOOPS = ["new", "shared"]

ACTORS = '''
"""The actors of a project under gevent; libraries are imported before `worker`, which must not matter."""
import aiosqlite
import anyio
import asyncio
import json
import subprocess
import threading
import time
from contextvars import ContextVar
from pathlib import Path

import dramatiq
import gevent
import httpx
import redis.asyncio
from dramatiq.middleware.threading import Interrupt

from worker import actor, create_broker, current_attempt, run_in_thread_pool
from worker.bridge import run_async_in_new_loop, run_async_in_shared_loop
from worker.threads.greenlets import get_os_ident

broker = create_broker()
dramatiq.set_broker(broker)
BRIDGES = {"new": run_async_in_new_loop, "shared": run_async_in_shared_loop}
MAIN = get_os_ident()
turns: list[float] = []
begun: list[float] = []


@actor(max_retries=0)
def tick(folder: str) -> None:
    """Notes when this greenlet gets its turn, until it is told to stop."""
    stop = Path(folder, "stop")
    turns.clear()
    Path(folder, "ticking").touch()
    while not stop.exists():
        time.sleep(0.01)
        turns.append(time.monotonic())
    Path(folder, "turns").write_text(json.dumps(turns))


def nap() -> tuple[int, float, float]:
    """The thread, and from when until when it blocked: until all four did, and the greenlet had three turns more."""
    began = time.monotonic()
    begun.append(began)
    while time.monotonic() < began + 30:
        time.sleep(0.005)
        if len(begun) == 4 and len([turn for turn in turns if turn > max(begun)]) >= 3:
            break
    return get_os_ident(), began, time.monotonic()


@actor(max_retries=0)
def four_calls(loop: str, file: str) -> None:
    async def work() -> tuple[int, list[tuple[int, float, float]]]:
        return get_os_ident(), await asyncio.gather(*(run_in_thread_pool(nap) for _ in range(4)))

    begun.clear()
    own, naps = BRIDGES[loop](work())
    Path(file).write_text(json.dumps({"threads": [MAIN, own], "naps": naps}))


@actor(max_retries=0)
def calls(loop: str) -> None:
    BRIDGES[loop](run_in_thread_pool(get_os_ident))


@actor(max_retries=0)
def libraries(loop: str, url: str, file: str) -> None:
    """What libraries do in a loop: threads, locks, queues and sockets of their own."""

    async def work() -> dict[str, object]:
        async with aiosqlite.connect(":memory:") as database, database.execute("SELECT 7") as cursor:
            [row] = await cursor.fetchall()
        async with httpx.AsyncClient() as client:
            status = (await client.get(url)).status_code
        path = broker.client.connection_pool.connection_kwargs["path"]
        async with redis.asyncio.Redis(unix_socket_path=path) as cache:
            pong = await cache.ping()
        ran = await anyio.to_thread.run_sync(threading.current_thread)
        await wanted.asend(file + ".sent")
        await run_in_thread_pool(wanted.send, file + ".sent-in-pool")
        attempt = await run_in_thread_pool(current_attempt)
        found = {"row": row[0], "status": status, "pong": pong, "message": attempt.message_id}
        return found | {"thread": type(ran).__module__}

    Path(file).write_text(json.dumps(BRIDGES[loop](work())))


@actor(max_retries=0)
def wanted(file: str) -> None:
    Path(file).touch()


async def idle(file: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        await asyncio.to_thread(Path(file).write_text, "cleaned up")


@actor(loop="new", time_limit="300ms", max_retries=0)
async def limited_new(file: str) -> None:
    await idle(file)


@actor(loop="shared", time_limit="300ms", max_retries=0)
async def limited_shared(file: str) -> None:
    await idle(file)


@actor(time_limit="300ms", max_retries=0)
def limited_sync(file: str) -> None:
    try:
        threading.Event().wait()
    finally:
        Path(file).write_text("cleaned up")


@actor(time_limit="300ms", max_retries=0)
def limited_in_turns(file: str) -> None:
    try:
        while True:
            time.sleep(0.01)
    finally:
        Path(file).write_text("cleaned up")


@actor(loop="new", time_limit="300ms", max_retries=0)
async def limited_stubborn(file: str) -> None:
    try:
        while True:
            time.sleep(0.01)
    finally:
        Path(file).write_text("cleaned up")


tenant = ContextVar("tenant", default="nobody")


@actor(max_retries=0)
def binds(file: str) -> None:
    with Path(file).open("a") as seen:
        seen.write(tenant.get() + "\\n")
    tenant.set("somebody")


@actor(loop="new", max_retries=0)
async def blocks_new() -> None:
    time.sleep(0.3)


@actor(loop="shared", max_retries=0)
async def blocks_shared() -> None:
    time.sleep(0.3)


@actor(max_retries=0)
def starts_a_program(loop: str, how: str) -> None:
    async def work() -> None:
        if how == "asyncio":
            await asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.PIPE)
        else:
            await run_in_thread_pool(subprocess.run, ["true"], check=True)

    BRIDGES[loop](work())


@actor(max_retries=0)
def starts_a_program_itself(file: str) -> None:
    said = subprocess.run(["echo", "hello"], check=True, capture_output=True, text=True).stdout
    Path(file).write_text(said)


@actor(max_retries=0)
def gives_up_twice(loop: str, file: str) -> None:
    """As code written for gevent does: two time-outs around one call, whose coroutine takes its time to clean up."""
    log = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await run_in_thread_pool(second_is_due.wait, 10)
            log.append("cleaned up")

    second_is_due = threading.Event()
    outer = gevent.Timeout(0.1, TimeoutError("outer"))
    try:
        with gevent.Timeout(0.05, TimeoutError("inner")), outer:
            gevent.spawn_later(0.15, second_is_due.set)
            BRIDGES[loop](work())
    except TimeoutError as error:
        log.append(str(error))
    Path(file).write_text(json.dumps(log))


class Abort(Interrupt):
    """As that of dramatiq-abort, which kills the greenlet with it."""


@actor(max_retries=0)
def is_aborted(loop: str, file: str) -> None:
    greenlet = gevent.getcurrent()
    gevent.spawn_later(0.1, lambda: greenlet.kill(Abort, block=False))
    BRIDGES[loop](idle(file))


@actor(max_retries=0)
def waits(loop: str, file: str) -> None:
    async def work() -> None:
        Path(file + ".started").touch()
        await asyncio.sleep(0.5)
        Path(file).touch()

    BRIDGES[loop](work())
'''


@contextlib.contextmanager
def gevent_worker(project: Project, module: str, *, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """`dramatiq-gevent` with one process, until the block ends."""
    words = [module, "--processes", "1", "--threads", str(threads), "--path", str(project.folder)]
    project.environment["PYTHONPATH"] = os.pathsep.join([str(project.folder), str(ROOT)])
    with project.background(str(BIN / "dramatiq-gevent"), *words) as process:
        wait_until_ready(project, process)
        yield process


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose worker runs all the while: whatever a message does, the next finds it as it was."""
    project = Project(tmp_path_factory.mktemp("gevent"), WORKER_CLEANUP_TIMEOUT="300ms")
    (project.folder / "actors.py").write_text(ACTORS)
    with gevent_worker(project, "actors", threads=12):
        yield project
    project.down()


class _Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of an HTTP server that answers each request with nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Nothing) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://localhost:{made.server_port}/"
        made.shutdown()
        thread.join()


def outcome(project: Project, actor: str, *args: object) -> StatusEvent:
    """The event that ends the only attempt of a message that is sent now."""
    return final(project, project.send(actor, *args))


def completed(project: Project, actor: str, *args: object) -> StatusEvent:
    event = outcome(project, actor, *args)
    assert (event.state, event.error) == (State.COMPLETED, None), log_of(project)
    return event


def log_of(project: Project) -> str:
    return (project.folder / "dramatiq-gevent.log").read_text()


@pytest.mark.parametrize("loop", LOOPS)
def test_four_blocking_calls_run_at_once_in_real_threads_while_greenlets_go_on(
    running: Project, tmp_path: Path, loop: str
) -> None:
    """All at the same time, in five threads that are not the greenlets', whose turns come all the while."""
    ticking = running.send("tick", str(tmp_path))
    wait_until((tmp_path / "ticking").exists)
    completed(running, "four_calls", loop, str(tmp_path / "found"))
    (tmp_path / "stop").touch()
    assert final(running, ticking).error is None
    found = json.loads((tmp_path / "found").read_text())
    threads, began, ended = zip(*found["naps"], strict=True)
    assert len({*threads, *found["threads"]}) == 6
    assert max(began) < min(ended)
    turns = json.loads((tmp_path / "turns").read_text())
    assert len([turn for turn in turns if max(began) < turn < min(ended)]) > 2


@pytest.mark.parametrize("loop", LOOPS)
def test_what_libraries_do_in_a_loop_works(running: Project, tmp_path: Path, loop: str, server: str) -> None:
    """A database in its own thread, HTTP by name, other threads, sending messages; and the attempt is known."""
    file = tmp_path / "found"
    event = completed(running, "libraries", loop, server, str(file))
    assert json.loads(file.read_text()) == {
        "row": 7,
        "status": 200,
        "pong": True,
        "thread": "anyio._backends._asyncio",
        "message": event.message_id,
    }
    wait_until(lambda: Path(f"{file}.sent").exists() and Path(f"{file}.sent-in-pool").exists())


def test_what_an_actor_binds_is_not_seen_by_the_next_message_of_its_greenlet(running: Project, tmp_path: Path) -> None:
    """More messages than there are greenlets, each with a context of its own."""
    file = tmp_path / "seen"
    for message in [running.send("binds", str(file)) for _ in range(30)]:
        assert final(running, message).error is None
    assert file.read_text().split() == ["nobody"] * 30


@pytest.mark.parametrize("kind", ["new", "shared", "sync", "in_turns"])
def test_a_time_limit_ends_an_attempt_which_cleans_up(running: Project, tmp_path: Path, kind: str) -> None:
    """A coroutine through its loop, awaits in `finally` included; a sync actor where its greenlet waits."""
    file = tmp_path / "cleaned"
    event = outcome(running, f"limited_{kind}", str(file))
    assert event.state is State.FAILED
    assert event.error is not None
    assert event.error.type == "dramatiq.middleware.time_limit.TimeLimitExceeded"
    assert event.duration_ms is not None
    assert 290 <= event.duration_ms < 5_000
    assert file.read_text() == "cleaned up"


@pytest.mark.parametrize("loop", LOOPS)
def test_an_interrupt_of_a_plug_in_cancels_the_coroutine(running: Project, tmp_path: Path, loop: str) -> None:
    """What a plug-in throws into a greenlet ends its coroutine, which cleans up; it is told as CANCELLED."""
    file = tmp_path / "cleaned"
    event = outcome(running, "is_aborted", loop, str(file))
    assert event.state is State.CANCELLED
    assert event.error is not None
    assert event.error.type == "actors.Abort"
    assert file.read_text() == "cleaned up"


def test_a_coroutine_that_never_yields_is_interrupted_in_its_thread(running: Project, tmp_path: Path) -> None:
    """When its cleanup time is over; FAILED names the limit, and the next messages find everything in order."""
    file = tmp_path / "cleaned"
    event = outcome(running, "limited_stubborn", str(file))
    assert event.error is not None
    assert event.error.type == "dramatiq.middleware.time_limit.TimeLimitExceeded"
    assert file.read_text() == "cleaned up"
    assert "did not end within 0.3 s of its cancellation" in log_of(running)
    for loop in LOOPS:
        completed(running, "calls", loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_thrown_into_a_greenlet_leaves_the_call_when_the_coroutine_has_ended(
    running: Project, tmp_path: Path, loop: str
) -> None:
    """The first of them, however many there are: no two attempts work at once."""
    completed(running, "gives_up_twice", loop, str(tmp_path / "log"))
    assert json.loads((tmp_path / "log").read_text()) == ["cleaned up", "inner"]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_blocks_a_loop_is_found_there_too(running: Project, loop: str) -> None:
    """The final event says how long, and where."""
    event = completed(running, f"blocks_{loop}")
    assert event.blocked_ms is not None
    assert event.blocked_ms >= 290
    assert f"in blocks_{loop}" in (event.blocked_at or "")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["asyncio", "in the pool"])
def test_programs_started_in_a_loop_or_in_the_pool_are_refused(running: Project, loop: str, how: str) -> None:
    """At once, with a typed error that says what to do; gevent would never tell when they end."""
    event = outcome(running, "starts_a_program", loop, how)
    assert event.state is State.FAILED
    assert event.error is not None
    assert event.error.type == "worker.errors.NotUnderGevent"
    assert "start it in the actor itself, or run `dramatiq`" in event.error.text


def test_an_actor_itself_may_start_programs(running: Project, tmp_path: Path) -> None:
    """There gevent waits for them, and other greenlets get their turns."""
    completed(running, "starts_a_program_itself", str(tmp_path / "said"))
    assert (tmp_path / "said").read_text() == "hello\n"


def test_sigterm_lets_attempts_end_and_then_the_process(tmp_path: Path) -> None:
    """On both kinds of loops; nothing hangs, and nothing is left."""
    project = Project(tmp_path)
    (tmp_path / "actors.py").write_text(ACTORS)
    try:
        with gevent_worker(project, "actors", threads=4) as process:
            messages = [project.send("waits", loop, str(tmp_path / loop)) for loop in LOOPS]
            wait_until(lambda: all((tmp_path / f"{loop}.started").exists() for loop in LOOPS))
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
            assert project.processes() == {}
        for message, loop in zip(messages, LOOPS, strict=True):
            assert (tmp_path / loop).exists()
            assert final(project, message).state is State.COMPLETED
        assert project.waiting() == 0
    finally:
        project.down()


def test_fifty_conversations_are_merged_and_summarized_at_once(tmp_path: Path, settings: Settings) -> None:
    """By the built-in actors: each message has one attempt, COMPLETED, and no event is missing or too many.

    What was summarized is put into the search index, by a message of its own, which comes back later when too many
    others write there.
    """
    project = Project(tmp_path)
    assert settings.data_dir == project.data_dir
    folder = tmp_path / "clips"
    folder.mkdir()
    sample = Path(str(files("worker") / "sample"))
    clip = min(sample.glob("*.ogg"), key=lambda file: file.stat().st_size)
    for file in (clip, clip.with_suffix(".txt")):
        shutil.copy(file, folder)
    ids = [f"conversation-{number}" for number in range(50)]

    async def import_all() -> None:
        await asyncio.gather(*(import_conversation(folder, one) for one in ids))

    run_async_in_new_loop(import_all())
    try:
        with gevent_worker(project, "worker.tasks", threads=50):
            for one in ids:
                project.send("merge_conversation", one, queue="cpu")
                project.send("summarize_conversation", one, queue="network")
            wait_until(lambda: len([one for one in recorded(project) if one.state is State.COMPLETED]) >= 150, 300)
            wait_until(lambda: not project.waiting())
            events = recorded(project)
        said = Counter((event.event, (event.subject or {})["conversation_id"]) for event in events)
        states = (State.STARTED, State.COMPLETED)
        expected = {f"{actor}_conversation.{state}" for actor in ("merge", "summarize", "index") for state in states}
        again = Counter(about for event, about in said.elements() if event == "index_conversation.snoozed")
        for about, times in again.items():
            said["index_conversation.started", about] -= times
            del said["index_conversation.snoozed", about]
        assert said == Counter((event, one) for event in expected for one in ids), log_of(project)
        errors = {event.error.type for event in events if event.error is not None}
        assert errors <= {"worker.errors.RetryLater"}
        assert len({event.worker.pid for event in events}) == 1
        assert project.dead_letters() == []
        assert len(list((project.data_dir / "objects" / "merged").glob("*/*.mp3"))) == 50
    finally:
        project.down()


def recorded(project: Project) -> list[StatusEvent]:
    """All events, without those of progress."""
    events = read_events(project.client, EventFilter(), 1_000)
    return [event for event in events if event.state is not State.PROGRESS]
