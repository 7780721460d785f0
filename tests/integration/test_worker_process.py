"""Real worker processes on a real server: how attempts are interrupted, what cannot kill them, and what they log."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import BIN, Project
from tests.support.waiting import TIMEOUT, wait_until
from worker.history.events import State, StatusEvent
from worker.history.query import ask, state_counts

ACTORS = '''
"""The actors of a project; written without care where that is what is tested."""
import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import dramatiq

from worker import ProcessingStatusContext, actor, create_broker, current_attempt, run_async_in_new_loop
from worker.bridge import cancel_requested, run_async_in_shared_loop, run_in_thread_pool
from worker.ground.logs import get_logger

dramatiq.set_broker(create_broker())
logger = get_logger(__name__)


async def idle(file: str) -> None:
    Path(file + ".started").touch()
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


@dramatiq.actor(notify_shutdown=True, max_retries=1, min_backoff=60_000, max_backoff=60_000)
def notified_new(file: str) -> None:
    with ProcessingStatusContext(event_prefix="notified"):
        run_async_in_new_loop(idle(file))


@dramatiq.actor(notify_shutdown=True, max_retries=1)
def notified_shared(file: str) -> None:
    with ProcessingStatusContext(event_prefix="notified"):
        run_async_in_shared_loop(idle(file))


async def end(how: str) -> None:
    await asyncio.sleep(0)
    if how == "sys.exit":
        sys.exit(3)
    if how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if how == "in a task":
        await asyncio.wait_for(end("sys.exit"), 10)
    if how == "in a callback":
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(0.05)
        raise SystemExit(3)


@actor(loop="new", max_retries=0)
async def ends_new(how: str) -> None:
    await end(how)


@actor(loop="shared", max_retries=0)
async def ends_shared(how: str) -> None:
    await end(how)


@actor(loop="new")
async def counts_in_the_pool(file: str) -> None:
    def count() -> None:
        Path(file + ".started").touch()
        for number in range(1_000):
            if cancel_requested():
                Path(file).write_text(f"told at {number}")
                return
            time.sleep(0.01)
        Path(file).write_text("ended by itself")

    await run_in_thread_pool(count)


def hang(file: str) -> None:
    Path(file + ".started").touch()
    threading.Event().wait()


@actor(loop="new")
async def hangs_new(file: str) -> None:
    await asyncio.to_thread(hang, file)


@actor(loop="shared")
async def hangs_shared(file: str) -> None:
    await asyncio.to_thread(hang, file)


@actor(loop="new")
async def works_new() -> None:
    await asyncio.sleep(0)


@actor(loop="shared")
async def works_shared() -> None:
    await asyncio.sleep(0)


@actor(subject=("name",), max_retries=1)
async def fails_first(name: str) -> None:
    if current_attempt().number == 1 or name == "always":
        raise ValueError("not yet")


@actor(loop="new", max_retries=0)
async def leaks() -> None:
    password = os.environ["SECRET_OF_A_FRAME"]
    try:
        raise ValueError("two\\nlines")
    except ValueError:
        logger.exception("about to fail", number=7)
    raise RuntimeError("no answer from redis://user:" + password + "@host:6379/0")
'''

SECRET = "hunter2-in-a-local"


def final(project: Project, message_id: str) -> StatusEvent:
    """The event that ends the message's first attempt, once it is there."""

    def found() -> list[StatusEvent]:
        return [event for event in project.events(message_id) if event.state.is_final]

    wait_until(found)
    return found()[0]


def wait_until_ready(project: Project, process: subprocess.Popen[bytes]) -> None:
    """Returns when the worker takes messages; shows its log if it ends before."""
    log = next(project.folder.glob("*.log"))
    wait_until(lambda: process.poll() is not None or "ready for action" in log.read_text())
    assert process.poll() is None, log.read_text()


@contextlib.contextmanager
def dramatiq_worker(project: Project, *, threads: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """`dramatiq actors` with one process, until the block ends."""
    words = ["actors", "--processes", "1", "--threads", str(threads), "--path", str(project.folder)]
    with project.background(str(BIN / "dramatiq"), *words) as process:
        wait_until_ready(project, process)
        yield process


def new_project(folder: Path, **variables: str) -> Project:
    project = Project(folder, SECRET_OF_A_FRAME=SECRET, WORKER_LOG_FORMAT="json", **variables)
    (folder / "actors.py").write_text(ACTORS)
    return project


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose worker runs all the while: whatever a message does, the next finds it as it was."""
    project = new_project(tmp_path_factory.mktemp("running"))
    with dramatiq_worker(project):
        yield project
    project.down()


@pytest.mark.parametrize("loop", ["new", "shared"])
def test_a_time_limit_cancels_an_idle_coroutine_which_cleans_up(running: Project, tmp_path: Path, loop: str) -> None:
    """Awaits in `finally` included; FAILED names the limit, soon after it was over."""
    file = tmp_path / "cleaned"
    event = final(running, running.send(f"limited_{loop}", str(file)))
    assert event.state is State.FAILED
    assert event.error is not None
    assert event.error.type == "dramatiq.middleware.time_limit.TimeLimitExceeded"
    assert event.duration_ms is not None
    assert 290 <= event.duration_ms < 5_000
    assert file.read_text() == "cleaned up"


@pytest.mark.parametrize("loop", ["new", "shared"])
@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("sys.exit", "SystemExit"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("in a task", "SystemExit"),
        ("in a callback", "SystemExit"),
    ],
)
def test_a_coroutine_that_ends_the_program_ends_its_attempt_only(
    running: Project, loop: str, how: str, kind: str
) -> None:
    """FAILED; the same process and the same kind of loop serve the next messages, one on each thread and more."""
    event = final(running, running.send(f"ends_{loop}", how))
    assert event.state is State.FAILED
    assert event.error is not None
    assert event.error.type == kind
    for message in [running.send(f"works_{loop}") for _ in range(4)]:
        next_one = final(running, message)
        assert (next_one.state, next_one.error) == (State.COMPLETED, None)
        assert next_one.worker == event.worker


def test_logs_are_lines_of_json_without_the_locals_of_frames_and_without_passwords(running: Project) -> None:
    """One object a line, tracebacks with line breaks included; what a frame holds is nobody's business."""
    message = running.send("leaks")
    assert final(running, message).state is State.FAILED
    log = running.folder / "dramatiq.log"
    wait_until(lambda: message in log.read_text())
    text = log.read_text()
    lines = [line for line in text.splitlines() if "[dramatiq.MainProcess]" not in line]
    objects = [json.loads(line) for line in lines]
    assert {type(one) for one in objects} == {dict}
    about = [one for one in objects if one.get("message_id") == message]
    [own] = [one for one in about if one["event"] == "about to fail"]
    assert own["number"] == 7
    assert (own["actor"], own["attempt"], own["level"], own["logger"]) == ("leaks", 1, "error", "actors")
    assert "ValueError: two\nlines" in own["exception"]
    assert any("RuntimeError: no answer from redis://user:***@host:6379/0" in one.get("exception", "") for one in about)
    assert SECRET not in text


def test_sigterm_cancels_attempts_that_asked_for_it_in_order(tmp_path: Path) -> None:
    """Their `finally` blocks run, the event is CANCELLED, the messages wait for other workers, and the process ends."""
    project = new_project(tmp_path)
    files = {loop: tmp_path / loop for loop in ("new", "shared")}
    try:
        with dramatiq_worker(project) as process:
            messages = {loop: project.send(f"notified_{loop}", str(file)) for loop, file in files.items()}
            wait_until(lambda: all(Path(f"{file}.started").exists() for file in files.values()))
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
            assert project.processes() == {}
        for loop, message in messages.items():
            assert files[loop].read_text() == "cleaned up"
            event = final(project, message)
            assert (event.state, event.event) == (State.CANCELLED, "notified.cancelled")
            assert event.error is not None
            assert event.error.type == "dramatiq.middleware.shutdown.Shutdown"
            assert event.text == "shutdown"
        assert ask(project.client, state_counts()) == {"queued": 2}
    finally:
        project.down()


def test_what_runs_in_the_thread_pool_at_sigterm_is_given_the_grace_period_and_then_told(tmp_path: Path) -> None:
    """The function asks whether it is to end; its message is given back when it has."""
    project = new_project(tmp_path, WORKER_GRACE="1s")
    file = tmp_path / "file"
    try:
        with dramatiq_worker(project) as process:
            message = project.send("counts_in_the_pool", str(file))
            wait_until(Path(f"{file}.started").exists)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        told, _, number = file.read_text().rpartition(" ")
        assert told == "told at"
        assert int(number) >= 50  # of about a hundred in a second
        assert final(project, message).state is State.CANCELLED
        assert ask(project.client, state_counts()) == {"queued": 1}
    finally:
        project.down()


@pytest.mark.clock
@pytest.mark.parametrize("loop", ["new", "shared"])
def test_a_blocking_call_that_cannot_be_stopped_keeps_no_process_from_ending(tmp_path: Path, loop: str) -> None:
    """At SIGTERM it gets the grace period and the time to clean up, is told, and ends with its process."""
    project = new_project(tmp_path, WORKER_GRACE="200ms", WORKER_CLEANUP_TIMEOUT="500ms")
    file = tmp_path / "file"
    try:
        with dramatiq_worker(project) as process:
            message = project.send(f"hangs_{loop}", str(file))
            wait_until(Path(f"{file}.started").exists)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0  # the call takes ten minutes
        event = final(project, message)
        assert event.state is State.CANCELLED
        assert "hang cannot be stopped, and ends with its process" in event.text
        assert "hang cannot be stopped, and ends with its process" in (tmp_path / "dramatiq.log").read_text()
        assert ask(project.client, state_counts()) == {"queued": 1}
    finally:
        project.down()


@pytest.mark.parametrize("key", ["worker:layout", "worker:seq"])
def test_a_worker_that_finds_data_of_the_former_layout_does_not_start(tmp_path: Path, key: str) -> None:
    """It says so in one line, with what to do, and touches nothing."""
    project = new_project(tmp_path)
    try:
        if key == "worker:layout":
            project.client.hset(key, "version", "1")
        else:
            project.client.set(key, "7")
        words = ["actors", "--processes", "1", "--threads", "1", "--path", str(project.folder)]
        done = project.run(str(BIN / "dramatiq"), *words, code=3)
        (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "layout" in line]
        assert "the server's data have layout 1, this version reads 2: let workers of the former version" in line
        assert "Traceback" not in done.stdout + done.stderr
        assert project.client.keys() == [key.encode()]
    finally:
        project.down()


def test_dramatiqs_own_broker_works_with_the_history(tmp_path: Path) -> None:
    """`WORKER_BROKER=redis-lists`: attempts, retries and dead letters are recorded, and a shutdown is a retry."""
    variables = {"WORKER_BROKER": "redis-lists", "WORKER_ACTORS": "actors", "PYTHONPATH": str(tmp_path)}
    project = new_project(tmp_path, **variables)
    file = tmp_path / "file"
    try:
        with dramatiq_worker(project) as process:
            good, bad = project.enqueue("fails_first", "once"), project.enqueue("fails_first", "always")
            wait_until(lambda: ask(project.client, state_counts()) == {"completed": 1, "dead": 1})
            cancelled = project.enqueue("notified_new", str(file))
            wait_until(Path(f"{file}.started").exists)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        attempts = [("started", 1), ("failed", 1), ("started", 2)]
        for message, end in ((good, "completed"), (bad, "failed")):
            events = project.events(message)
            assert [(str(event.state), event.attempt) for event in events] == [*attempts, (end, 2)]
            assert events[1].text.startswith("retry in")
            assert {event.subject["name"] for event in events} == {"once" if end == "completed" else "always"}
            assert events[2].queued_ms is not None
        assert project.dead_letters() == [bad]
        event = final(project, cancelled)
        assert (event.state, event.text[:8]) == (State.CANCELLED, "retry in")
        assert file.read_text() == "cleaned up"
        assert ask(project.client, state_counts()) == {"completed": 1, "dead": 1, "delayed": 1}
    finally:
        project.down()
