"""Measures the cost of a call through the bridge, beside other libraries; all contenders in the same run.

    python bench/bridge.py [--rounds 5] [--seconds 0.3] [--json FILE]

The figures are microseconds per call, medians of interleaved rounds. The extra `bench` installs the contenders.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

try:
    import anyio.from_thread
    import asgiref.sync
    import httpx
    import redis.asyncio
    import uvloop
    from dramatiq.asyncio import EventLoopThread
    from dramatiq.logging import get_logger
    from sqlalchemy.ext.asyncio import create_async_engine
except ModuleNotFoundError as error:
    print(f"{error.name} is missing: pip install 'dramatiq-bridge[bench]'", file=sys.stderr)
    sys.exit(2)

from worker import loop_resource, run_async_in_new_loop, run_async_in_shared_loop, run_in_thread_pool

Service = Callable[[], Awaitable[object]]
Contender = Callable[[Service], object]

THREADS = (1, 8, 64)
TLS = httpx.create_ssl_context()


async def returns_at_once() -> int:
    return 1


async def yields_once() -> None:
    await asyncio.sleep(0)


async def pool_hop() -> int:
    return await run_in_thread_pool(threading.get_ident)


@loop_resource
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=TLS) as opened:
        yield opened


def http_call(url: str) -> Service:
    async def get() -> int:
        # A loop resource: a client for each call on the new loop, one client for all on the shared loop.
        response = await (await client()).get(url)
        return response.status_code

    async def get_and_close() -> int:
        async with httpx.AsyncClient(verify=TLS) as own:
            return (await own.get(url)).status_code

    get.for_others = get_and_close  # type: ignore[attr-defined]
    return get


_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def _serve(port: Connection) -> None:
    """Answers every request with the same text, in a process of its own: it must not share our interpreter."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_ANSWER)
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


@contextlib.contextmanager
def local_server() -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{here.recv()}/"
    process.terminate()
    process.join()


def with_uvloop(service: Service) -> object:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_coroutine(service))


async def _coroutine(service: Service) -> object:
    return await service()


@contextlib.contextmanager
def contenders() -> Iterator[dict[str, Contender]]:
    dramatiq_loop = EventLoopThread(get_logger("bench"))
    dramatiq_loop.start()
    with anyio.from_thread.start_blocking_portal() as portal:
        yield {
            "new loop (ours)": run_async_in_new_loop,
            "shared loop (ours)": run_async_in_shared_loop,
            "asyncio.run": lambda service: asyncio.run(_coroutine(service)),
            "Runner, uvloop": with_uvloop,
            "anyio portal": portal.call,
            "asgiref": lambda service: asgiref.sync.async_to_sync(service)(),
            "Dramatiq's loop thread": lambda service: dramatiq_loop.run_coroutine(service()),
        }
    dramatiq_loop.stop()


def microseconds(run: Contender, service: Service, threads: int, seconds: float) -> float:
    """The wall-clock microseconds of a call, from this many threads, measured for this many seconds."""
    calls = [0] * threads
    begin = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        begin.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            run(service)
            calls[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - started) / max(1, sum(calls)) * 1e6


def opening_costs(rounds: int) -> dict[str, float]:
    """Microseconds that opening and closing each kind of resource adds to a new loop."""

    async def httpx_with_shared_tls() -> None:
        async with httpx.AsyncClient(verify=TLS):
            pass

    async def httpx_alone() -> None:
        async with httpx.AsyncClient():
            pass

    async def redis_client() -> None:
        await redis.asyncio.Redis(host="127.0.0.1").aclose()

    async def sqlite_engine() -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect():
            pass
        await engine.dispose()

    services = {
        "nothing": returns_at_once,
        "httpx.AsyncClient, one SSLContext": httpx_with_shared_tls,
        "httpx.AsyncClient, its own": httpx_alone,
        "redis.asyncio.Redis": redis_client,
        "SQLAlchemy engine and connection": sqlite_engine,
    }
    times: dict[str, list[float]] = {name: [] for name in services}
    for _ in range(rounds):
        for name, service in services.items():
            times[name].append(microseconds(run_async_in_new_loop, service, 1, 0.1))
    return {name: statistics.median(found) for name, found in times.items()}


def measure(rounds: int, seconds: float) -> dict[str, dict[str, dict[int, float]]]:
    """Medians by service, contender and number of threads."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    with local_server() as url, contenders() as runs:
        services = {
            "returns at once": returns_at_once,
            "yields once": yields_once,
            "one pool hop": pool_hop,
            "one HTTP call": http_call(url),
        }
        for _ in range(rounds):
            for service_name, service in services.items():
                for threads in THREADS:
                    for name, run in runs.items():
                        plain = "ours" in name
                        wanted = service if plain else getattr(service, "for_others", service)
                        times = found.setdefault(service_name, {}).setdefault(name, {}).setdefault(threads, [])
                        times.append(microseconds(run, wanted, threads, seconds))
    return {
        service: {name: {t: statistics.median(v) for t, v in by.items()} for name, by in names.items()}
        for service, names in found.items()
    }


def report(found: dict[str, dict[str, dict[int, float]]], opening: dict[str, float]) -> None:
    for service, names in found.items():
        print(f"\n{service}: µs a call (ratio to asyncio.run)")
        print(f"{'':26}" + "".join(f"{f'{threads} threads':>20}" for threads in THREADS))
        for name, by in names.items():
            cells = [f"{by[t]:>11.1f} ({by[t] / names['asyncio.run'][t]:>5.2f})" for t in THREADS]
            print(f"{name:26}" + "".join(f"{cell:>20}" for cell in cells))
    print("\nopening and closing on a new loop: µs a call")
    for name, cost in opening.items():
        print(f"{name:36}{cost:>10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds of calls, for each figure in each round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = measure(options.rounds, options.seconds)
    opening = opening_costs(options.rounds)
    report(found, opening)
    if options.json is not None:
        options.json.write_text(json.dumps({"us_a_call": found, "opening_us": opening}, indent=2))


if __name__ == "__main__":
    main()
