"""Ctrl-C in a script, which calls services from its main thread; in processes of their own, on each kind of loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from worker import run_async_in_new_loop

PROLOGUE = """
import asyncio, contextlib, os, signal, sys
from tests.support.loops import use_loops_of
from worker import loop_resource, run_async_in_new_loop
from worker.loops import fresh_loop
from worker.bridge import run_async_in_shared_loop
if sys.argv[1] == "standard":
    fresh_loop._possible = False
use_loops_of(sys.argv[1])

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)

def call(run, service):
    try:
        print("returned", run(service), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)

@loop_resource
@contextlib.asynccontextmanager
async def resource():
    yield
    await asyncio.sleep(0)
    print("closed", flush=True)
"""

KINDS = pytest.mark.parametrize("kind", ["ours", "standard", "uvloop"])
RUNS = pytest.mark.parametrize("run", ["run_async_in_new_loop", "run_async_in_shared_loop"])


def said(script: str, kind: str, **environment: str) -> list[str]:
    """What a script prints, line by line; nothing of it may warn."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROLOGUE + script, kind],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@KINDS
@RUNS
def test_ctrl_c_cancels_the_coroutine_and_comes_out_itself(kind: str, run: str) -> None:
    """`finally` blocks run, awaits in them included, and KeyboardInterrupt leaves the call."""
    script = f"""
async def service():
    asyncio.get_running_loop().call_later(0.05, ctrl_c)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)

call({run}, service)
"""
    assert said(script, kind) == ["cleaned up", "interrupted"]


@KINDS
def test_ctrl_c_while_a_loop_is_closed_comes_out_once_it_is(kind: str) -> None:
    """What was left over cleans up, resources are closed, and the interrupt is not lost."""
    script = """
async def left_over():
    try:
        await asyncio.Event().wait()
    finally:
        asyncio.get_running_loop().call_later(0.02, ctrl_c)
        await asyncio.sleep(0.05)
        print("cleaned up", flush=True)

async def service():
    await resource()
    service.task = asyncio.create_task(left_over())
    await asyncio.sleep(0)

call(run_async_in_new_loop, service)
assert service.task.done()
"""
    assert said(script, kind) == ["cleaned up", "closed", "interrupted"]


@KINDS
def test_ctrl_c_that_hits_the_closing_itself_is_no_exception(kind: str) -> None:
    """The closing begins again, and ends."""
    script = """
async def shut_down_after_ctrl_c(self):
    type(self).shutdown_default_executor = shutdown
    ctrl_c()
    # Where the exception is raised.
    for _ in range(1000):
        pass
    await shutdown(self)

async def service():
    global shutdown
    await resource()
    await asyncio.to_thread(int)
    kind = type(asyncio.get_running_loop())
    shutdown = kind.shutdown_default_executor
    kind.shutdown_default_executor = shut_down_after_ctrl_c

call(run_async_in_new_loop, service)
"""
    assert said(script, kind) == ["closed", "interrupted"]


@RUNS
def test_a_second_ctrl_c_does_not_wait(run: str) -> None:
    """Whoever presses it twice wants to leave a coroutine behind that does not end."""
    script = f"""
async def service():
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, ctrl_c)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        loop.call_later(0.05, ctrl_c)
        await asyncio.sleep(60)

call({run}, service)
os._exit(0)
"""
    began = time.monotonic()
    assert said(script, "ours", WORKER_CLEANUP_TIMEOUT="50s") == ["interrupted"]
    assert time.monotonic() - began < 25


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_in_other_threads_it_is_a_left_over_tasks_own_and_does_not_replace_the_result(
    error: type[BaseException],
) -> None:
    """No signal comes there: whatever a task raises when it is cancelled, the service has ended."""
    outcome: list[object] = []
    kept: list[asyncio.Task[None]] = []  # the loop does not: the collector may come before its end

    async def left_over() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    async def service() -> str:
        task = asyncio.create_task(left_over())
        kept.append(task)
        await asyncio.sleep(0)
        return "done" if not task.done() else "too soon"

    def call() -> None:
        try:
            outcome.append(run_async_in_new_loop(service))
        except BaseException as raised:  # noqa: BLE001 - what comes out is what is tested
            outcome.append(raised)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    assert outcome == ["done"]
