"""Fork: what a process made before it is the parent's; the child makes its own, and both go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_worker_process import final, wait_until_ready
from tests.support.project import BIN, ROOT, Project
from worker import ProcessingStatusContext, loop_resource, run_async_in_new_loop, run_in_thread_pool
from worker.bridge import run_async_in_shared_loop
from worker.history.events import State, StatusEvent
from worker.history.filters import EventFilter
from worker.history.query import read_events
from worker.history.writer import default_writer
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

DEADLINE = 20
"""Seconds after which a child that hangs is ended, by a signal: the exit status tells."""

# Python 3.12 warns of every fork in a process with threads. Dramatiq's is one.
QUIET = ["-W", "error", "-W", "ignore:This process"]


@loop_resource
async def resource() -> AsyncIterator[int]:
    """Tells which process opened it."""
    yield os.getpid()


async def _look() -> dict[str, int]:
    return {
        "loop thread": threading.get_native_id(),
        "pool thread": await run_in_thread_pool(threading.get_native_id),
        "resource of": await resource(),
    }


def use_everything(client: RedisClient) -> dict[str, int]:
    """Uses all that a process makes once, and tells which threads, process and connection it was.

    The kernel's ids of threads: Python's own may be the same in parent and child.
    """
    with ProcessingStatusContext("use_everything", "", pid=os.getpid()):
        found = run_async_in_shared_loop(_look)
    new = run_async_in_new_loop(_look)
    assert new["loop thread"] == threading.get_native_id()
    assert new["resource of"] == os.getpid()
    default_writer().record(StatusEvent(event="used.completed", state=State.COMPLETED))
    assert default_writer().flush(5)
    return found | {
        "pid": os.getpid(),
        "main thread": threading.get_native_id(),
        "connection": client.client_id(),
        "writer thread": default_writer()._thread.native_id or 0,  # type: ignore[union-attr]
    }


def fork_once() -> None:
    """What a process of a test runs: the parent uses everything, its child, and the parent again."""
    client = connect(Settings.in_force())
    before = use_everything(client)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(DEADLINE)
        with os.fdopen(writer, "w") as out:
            json.dump(use_everything(client) | {"done": time.monotonic()}, out)
        # As a program ends: with what is registered for its exit.
        sys.exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        child = json.load(told)
    _, status = os.waitpid(pid, 0)
    exit_took = time.monotonic() - child.pop("done")
    after = use_everything(client)
    print(json.dumps([before, child, after, {"status": status, "exit took": exit_took}]))  # noqa: T201


def fork_while_busy(times: int) -> None:
    """What a process of a test runs: forks again and again while its threads use everything."""
    client = connect(Settings.in_force())
    ending = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not ending.is_set():
                use_everything(client)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    use_everything(client)
    statuses = []
    for _ in range(times):
        pid = os.fork()
        if pid == 0:
            signal.alarm(DEADLINE)
            mine = use_everything(client)
            os._exit(0 if mine["resource of"] == os.getpid() else 1)
        statuses.append(os.waitpid(pid, 0)[1])
    ending.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"statuses": statuses, "failures": [repr(failure) for failure in failures]}))  # noqa: T201


def fork_while_connecting() -> None:
    """What a process of a test runs: forks while another thread makes the first connection of their client."""
    connecting, go_on = threading.Event(), threading.Event()
    ensure_running = EmbeddedServer.ensure_running

    def slowly(server: EmbeddedServer) -> Path:
        # As long as a server takes to start.
        connecting.set()
        go_on.wait()
        return ensure_running(server)

    EmbeddedServer.ensure_running = slowly  # type: ignore[method-assign, assignment]
    client = connect(Settings.in_force())
    thread = threading.Thread(target=client.ping)
    thread.start()
    connecting.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(DEADLINE // 2)
        EmbeddedServer.ensure_running = ensure_running  # type: ignore[method-assign]
        os._exit(0 if client.ping() else 1)
    status = os.waitpid(pid, 0)[1]
    go_on.set()
    thread.join()
    print(json.dumps({"status": status, "parent": client.ping()}))  # noqa: T201


def run_here(function: str, folder: Path, environment: dict[str, str]) -> Any:
    """Runs a function of this module in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, *QUIET, "-c", f"from tests.integration.test_fork import *; {function}"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "WORKER_LOG_LEVEL": "error"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture
def project(tmp_path: Path) -> Any:
    """An empty project, its server running."""
    made = Project(tmp_path)
    EmbeddedServer(Settings(data_dir=made.data_dir)).ensure_running()
    yield made
    made.down()


def test_a_forked_child_makes_everything_of_its_own_and_its_parent_goes_on(project: Project) -> None:
    """Threads, loops, resources, the history's writer and connections; and both end at once."""
    before, child, after, end = run_here("fork_once()", project.folder, project.environment)
    for one in (before, child, after):
        assert one["resource of"] == one["pid"]
    assert not set(before.values()) & set(child.values())
    for kept in ("pid", "loop thread", "connection", "writer thread"):
        assert after[kept] == before[kept], kept
    assert child["pool thread"] not in {before["pool thread"], after["pool thread"]}
    written = [
        event for event in read_events(project.client, EventFilter(), 100) if event.event == "use_everything.completed"
    ]
    assert [event.worker.pid for event in written] == [before["pid"], child["pid"], before["pid"]]
    assert end["status"] == 0
    # What is the parent's is not waited for.
    assert end["exit took"] < 4


def test_children_forked_at_any_moment_of_a_busy_parent_work(project: Project) -> None:
    """Whatever locks the parent's other threads held."""
    found = run_here("fork_while_busy(20)", project.folder, project.environment)
    assert found == {"statuses": [0] * 20, "failures": []}


def test_a_child_forked_while_a_connection_is_made_makes_its_own(project: Project) -> None:
    """It does not wait for the parent's thread, which it does not have."""
    assert run_here("fork_while_connecting()", project.folder, project.environment) == {"status": 0, "parent": True}


ACTORS = '''
"""Actors of a project that, badly, works at import."""
import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import dramatiq

from tests.integration.test_fork import use_everything
from worker import ProcessingStatusContext, actor, create_broker
from worker.settings import Settings

broker = create_broker()
dramatiq.set_broker(broker)

AT_IMPORT = use_everything(broker.client)


@actor(max_retries=0)
async def hello() -> None:
    await asyncio.sleep(0)


@dramatiq.actor(max_retries=0)
def tell(file: str) -> None:
    Path(file).write_text(json.dumps([AT_IMPORT, use_everything(broker.client)]))
'''

# A program that starts Dramatiq's workers from inside itself, after it has imported, and used, everything.
EMBEDS_DRAMATIQ = "import sys, actors; from dramatiq.cli import main; sys.exit(main())"


@pytest.mark.parametrize("forked_after_import", [False, True])
def test_actors_that_use_the_bridge_at_import_work_in_dramatiqs_processes(
    project: Project, tmp_path: Path, forked_after_import: bool
) -> None:
    """By the `dramatiq` command, which imports them in each process, and by a program that forks after the import."""
    (tmp_path / "actors.py").write_text(ACTORS)
    project.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    options = ["actors", "--processes", "2", "--threads", "2"]
    command = [sys.executable, "-c", EMBEDS_DRAMATIQ] if forked_after_import else [str(BIN / "dramatiq")]
    with project.background(*command, *options) as process:
        wait_until_ready(project, process)
        began = time.monotonic()
        for message in [project.send("hello") for _ in range(8)]:
            event = final(project, message)
            assert (event.state, event.error) == (State.COMPLETED, None)
            assert event.worker.pid != process.pid
        file = tmp_path / "told"
        told = final(project, project.send("tell", str(file)))
        assert told.error is None
        # Nothing waits for a thread that the fork left behind.
        assert time.monotonic() - began < 20
        at_import, now = json.loads(file.read_text())
        assert now["resource of"] == now["pid"] == told.worker.pid
        assert (at_import["pid"] == process.pid) is forked_after_import
        if forked_after_import:
            assert not set(at_import.values()) & set(now.values())
        process.terminate()
        assert process.wait(30) == 0


def test_importing_the_package_starts_nothing() -> None:
    """No thread, no loop, no connection: whoever forks after it has nothing to lose."""
    script = (
        "import os, threading, gc, asyncio\n"
        "before = set(os.listdir('/dev/fd'))\n"
        "import worker, worker.bridge, worker.testing, worker.tasks.conversations\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not [one for one in gc.get_objects() if isinstance(one, asyncio.AbstractEventLoop)]\n"
        "assert set(os.listdir('/dev/fd')) == before\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
