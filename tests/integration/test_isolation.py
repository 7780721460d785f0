"""Isolation: a call on a new loop leaves nothing behind, whatever it did and however often it is made."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any

import psutil
import pytest

from tests.conftest import forget_environment
from tests.support.attempts import Attempt, Stop
from tests.support.local import descriptors, serving
from tests.support.loops import use_loops_of
from tests.support.waiting import wait_until
from worker import loop_resource, run_async_in_new_loop, run_in_thread_pool
from worker.bridge import run_async_in_shared_loop, stop_shared_loop
from worker.loops import fresh_loop
from worker.loops.thread_pool import pool

ROOT = Path(__file__).parents[2]
THREADS = 8
FEW = 1_000
MOST_GROWTH_KB = {"ours": 4096, "standard": 4096, "uvloop": 16384}
"""Between 1,000 and 100,000 calls 4 MB are 42 bytes a call: less than one object. A loop of uvloop holds 250 KB until
the garbage collector comes, if the call raised: how many there are at most moves the mark."""


class Expected(Exception):
    """What a coroutine raises on purpose."""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
    finally:
        writer.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """That of a server that sends back each line."""
    with serving(_echo) as found:
        yield found


# What is called, one of each kind. What it returns must have ended with its loop.


async def returns_at_once(port: int) -> None:
    pass


async def yields(port: int) -> None:
    await asyncio.sleep(0)


async def sleeps(port: int) -> None:
    await asyncio.sleep(0.0001)


async def hops_to_the_pool(port: int) -> None:
    assert await run_in_thread_pool(threading.get_ident) != threading.get_ident()


async def hops_to_the_loops_own_executor(port: int) -> None:
    await asyncio.to_thread(int)


async def raises(port: int) -> None:
    await asyncio.sleep(0)
    raise Expected


async def raises_at_once(port: int) -> None:
    raise Expected


async def leaves_a_task(port: int) -> object:
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    return task


async def leaves_a_task_that_never_began(port: int) -> object:
    return asyncio.create_task(asyncio.sleep(10))


async def leaves_a_task_in_the_pool(port: int) -> object:
    task = asyncio.create_task(run_in_thread_pool(time.sleep, 0.0001))
    await asyncio.sleep(0)
    return task


async def leaves_a_timer(port: int) -> None:
    asyncio.get_running_loop().call_later(10, print)


async def numbers() -> AsyncGenerator[int]:
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)


async def leaves_a_generator_open(port: int) -> object:
    generator = numbers()
    assert await anext(generator) == 1
    return generator


async def drops_a_generator(port: int) -> None:
    assert await anext(numbers()) == 1


async def connects(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()
    await writer.wait_closed()


async def closes_a_connection_last(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()


@loop_resource
async def outer() -> AsyncIterator[str]:
    yield await inner() + " and outer"


@loop_resource
async def inner() -> AsyncIterator[str]:
    await asyncio.sleep(0)
    yield "inner"


async def opens_a_resource(port: int) -> None:
    assert await outer() == "inner and outer"


async def opens_a_resource_and_raises(port: int) -> None:
    await asyncio.gather(inner(), outer())
    raise Expected


Service = Callable[[int], Coroutine[Any, Any, object]]

SERVICES: list[Service] = [
    returns_at_once,
    yields,
    sleeps,
    hops_to_the_pool,
    hops_to_the_loops_own_executor,
    raises,
    raises_at_once,
    leaves_a_task,
    leaves_a_task_that_never_began,
    leaves_a_task_in_the_pool,
    leaves_a_timer,
    leaves_a_generator_open,
    drops_a_generator,
    connects,
    closes_a_connection_last,
    opens_a_resource,
    opens_a_resource_and_raises,
]


def call(service: Service, port: int) -> None:
    """Calls it as a message does, and sees that what it left has ended."""
    try:
        left = run_async_in_new_loop(lambda: service(port))
    except Expected:
        return
    if isinstance(left, asyncio.Task):
        assert left.done(), f"{left} has not ended"
    if isinstance(left, AsyncGeneratorType):
        assert left.ag_frame is None, f"{left} is open"


def call_from_threads(port: int, count: int) -> None:
    """So many calls in all, of each kind in turn, from 8 threads at once."""
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, count, THREADS):
                call(SERVICES[(number // THREADS + first) % len(SERVICES)], port)
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def os_threads() -> int:
    """The threads of this process, as the kernel counts them."""
    return psutil.Process().num_threads()


def measure() -> dict[str, int]:
    """What this process holds, once its ended threads are gone."""
    wait_until(lambda: os_threads() == threading.active_count())
    gc.collect()
    objects = gc.get_objects()
    return {
        "descriptors": len(descriptors()),
        "threads": os_threads(),
        "memory_kb": psutil.Process().memory_info().rss // 1024,
        "blocks": sys.getallocatedblocks(),
        "tasks": sum(isinstance(one, asyncio.Task) for one in objects),
        "loops": sum(isinstance(one, asyncio.AbstractEventLoop) for one in objects),
    }


def soak(port: int, count: int, kind: str) -> None:
    """What the process of a test runs: measures after 1,000 calls and after all of them; prints both."""
    _choose(kind)
    _fill_the_pool()
    call_from_threads(port, FEW)
    # The first measuring allocates too.
    measure()
    before = measure()
    call_from_threads(port, count - FEW)
    after = measure()
    # Of the processor: the clock would tell how busy the machine is.
    print(json.dumps({"before": before, "after": after, "seconds": time.process_time()}))  # noqa: T201


def _choose(kind: str) -> None:
    use_loops_of(kind)
    if kind == "standard":
        fresh_loop._possible = False


def _fill_the_pool() -> None:
    # It makes threads as calls need them: all at once, so that their number is known.
    together = threading.Barrier(pool().size)
    for future in [pool().submit(together.wait) for _ in range(pool().size)]:
        future.result(10)


def run_soak(port: int, count: int, kind: str, folder: Path) -> dict[str, Any]:
    """Soaks in a process of its own, where every warning is an error and must leave no trace."""
    script = f"from tests.integration.test_isolation import soak; soak({port}, {count}, {kind!r})"
    own = {"PYTHONPATH": str(ROOT), "WORKER_THREAD_POOL_SIZE": str(THREADS), "WORKER_DATA_DIR": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env=forget_environment(dict(os.environ)) | own,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_flat(found: dict[str, Any], kind: str) -> None:
    """Nothing was left by the calls between the two measurements."""
    before, after = found["before"], found["after"]
    assert (after["tasks"], after["loops"]) == (0, 0), found
    assert after["descriptors"] == before["descriptors"], found
    assert after["threads"] == before["threads"], found
    assert after["blocks"] - before["blocks"] < FEW, f"objects are left: {found}"
    assert after["memory_kb"] - before["memory_kb"] < MOST_GROWTH_KB[kind], found


def test_after_20_000_calls_from_8_threads_there_is_no_more_than_after_1_000(port: int, tmp_path: Path) -> None:
    """The same descriptors and threads, flat memory, no task, no loop, no warning; in less than 15 s."""
    found = run_soak(port, 20_000, "ours", tmp_path)
    check_flat(found, "ours")
    assert found["seconds"] < 15, found


@pytest.mark.parametrize("kind", ["standard", "uvloop"])
def test_other_kinds_of_loop_leave_no_more_behind(port: int, tmp_path: Path, kind: str) -> None:
    """The loop that is used where asyncio's private parts are missing, and one of a program's own policy."""
    check_flat(run_soak(port, 4_000, kind, tmp_path), kind)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["ours", "standard", "uvloop"])
def test_after_100_000_calls_from_8_threads_there_is_no_more_than_after_1_000(
    port: int, tmp_path: Path, kind: str
) -> None:
    """The contract's own number: `make soak`."""
    check_flat(run_soak(port, 100_000, kind, tmp_path), kind)


@pytest.fixture(params=["ours", "standard", "uvloop"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each kind of loop."""
    monkeypatch.setattr(fresh_loop, "_possible", fresh_loop._possible)
    _choose(request.param)
    yield
    use_loops_of("asyncio")


@pytest.mark.usefixtures("_kind")
@pytest.mark.parametrize("service", SERVICES, ids=lambda service: str(service.__name__))
def test_nothing_is_open_when_a_call_returns(port: int, service: Service) -> None:
    """Not only once the garbage collector has run."""
    call(service, port)
    run_async_in_new_loop(lambda: hops_to_the_pool(port))
    wait_until(lambda: pool()._idle == pool()._threads)
    gc.collect()
    gc.disable()
    try:
        before = {thread.ident for thread in threading.enumerate()}
        # The server's end of a connection, in this process too, is closed a moment later: only what is ours counts.
        opened = set(descriptors())
        call(service, port)
        wait_until(lambda: set(descriptors()) <= opened)
        assert {thread.ident for thread in threading.enumerate()} <= before
    finally:
        gc.enable()


@pytest.mark.usefixtures("_kind")
# uvloop closes what is left on it, and warns of it; where that warning is an error, its `close` never returns.
@pytest.mark.parametrize(
    "_kind",
    ["ours", "standard", pytest.param("uvloop", marks=pytest.mark.filterwarnings("ignore::ResourceWarning"))],
    indirect=True,
)
def test_a_connection_left_open_ends_with_its_loop(port: int) -> None:
    """Its descriptor is closed when the call returns, not when the garbage collector comes, and nothing warns."""
    kept: list[asyncio.StreamWriter] = []

    async def leaves_it_open() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        kept.append(writer)

    run_async_in_new_loop(leaves_it_open)
    [writer] = kept
    sock = writer.get_extra_info("socket")
    closed = sock is None or sock.fileno() == -1
    # A warning belongs to this test.
    kept.clear()
    del writer, sock
    gc.collect()
    assert closed


async def ends_the_program_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        sys.exit(3)


@pytest.mark.usefixtures("_kind")
def test_a_left_over_task_that_ends_the_program_keeps_nothing_open() -> None:
    """As with any other error of it: resources are closed, and the result stands."""
    log: list[str] = []

    @loop_resource
    async def own() -> AsyncIterator[None]:
        yield
        log.append("closed")

    async def service() -> str:
        await own()
        asyncio.ensure_future(ends_the_program_when_cancelled())  # noqa: RUF006 - left over on purpose
        await asyncio.sleep(0)
        return "done"

    outcome: object = None
    try:
        outcome = run_async_in_new_loop(service)
    except SystemExit as error:
        outcome = error
    # Of a task whose error nobody took.
    gc.collect()
    assert (log, outcome) == (["closed"], "done")


@pytest.mark.usefixtures("_kind")
@pytest.mark.parametrize("run", [run_async_in_new_loop, run_async_in_shared_loop])
def test_a_task_that_ends_the_program_when_cancelled_does_not_replace_the_interrupt(run: Callable[..., Any]) -> None:
    """The original interrupt leaves the call, never another error in its place."""
    started = threading.Event()

    async def service() -> None:
        started.set()
        await asyncio.gather(ends_the_program_when_cancelled(), asyncio.Event().wait())

    attempt = Attempt(lambda: run(service))
    assert started.wait(5)
    stop = Stop("time is up")
    attempt.interrupt(stop)
    outcome = attempt.result()
    stop_shared_loop()
    assert outcome is stop
