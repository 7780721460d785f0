"""Clients of three kinds at once, from services on both loops: none of them ever meets a loop that is not its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import httpx
import pytest
import redis
import redis.asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tests.support.local import descriptors, serving
from tests.support.waiting import wait_until
from worker import actor, loop_resource, run_async_in_new_loop, run_in_thread_pool
from worker.bridge import run_async_in_shared_loop
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.testing import StubWorker, stub_worker

MESSAGES = 1_000
THREADS = 8
KINDS = ("http", "redis", "sql")

T = TypeVar("T")

Loop = Literal["new", "shared"]

# Loading the certificates takes 16 ms: once a process.
CONTEXT = ssl.create_default_context()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1 with connections that are kept: tells each its path."""
    try:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                body = request.split()[1].removeprefix(b"/")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    finally:
        writer.close()


class Places:
    """Where the clients' servers are, and clients for them."""

    def __init__(self, port: int, socket: str, database: Path) -> None:
        self._port = port
        self._socket = socket
        self._database = database

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", verify=CONTEXT, trust_env=False)

    def redis(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis(unix_socket_path=self._socket)

    def sql(self) -> AsyncEngine:
        return create_async_engine(f"sqlite+aiosqlite:///{self._database}", poolclass=AsyncAdaptedQueuePool)


class Clients:
    """One of each kind; how a service comes by them is what the tests vary."""

    def __init__(
        self,
        http: Callable[[], Awaitable[httpx.AsyncClient]],
        redis: Callable[[], Awaitable[redis.asyncio.Redis]],
        sql: Callable[[], Awaitable[AsyncEngine]],
    ) -> None:
        self._http = http
        self._redis = redis
        self._sql = sql

    async def use(self, number: int) -> None:
        """All three at once, and each answers what it was asked."""
        asked = self.ask_http(number), self.ask_redis(number), self.ask_sql(number)
        from_http, from_redis, from_sql = await asyncio.gather(*asked)
        assert (from_http, from_redis, from_sql) == (str(number), number, number)

    async def ask_http(self, number: int) -> str:
        client = await self._http()
        return (await client.get(f"/{number}")).text

    async def ask_redis(self, number: int) -> int:
        client = await self._redis()
        await client.hincrby("used", str(number), 1)
        return int(await client.echo(str(number)))

    async def ask_sql(self, number: int) -> int:
        engine = await self._sql()
        async with engine.connect() as connection:
            found = await connection.scalar(text("select n from numbers where n = :n"), {"n": number})
        assert isinstance(found, int)
        return found


class Counted:
    """How often resources of each kind were opened and closed."""

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, kind: str) -> Iterator[None]:
        with self._lock:
            self.opened[kind] += 1
        try:
            yield
        finally:
            with self._lock:
                self.closed[kind] += 1


def resources(places: Places, counted: Counted) -> Clients:
    """Clients as the how-to says to have them: loop resources."""

    @loop_resource
    async def http() -> AsyncIterator[httpx.AsyncClient]:
        with counted.open("http"):
            async with places.http() as client:
                yield client

    # The other form: a function that returns an async context manager.
    @loop_resource
    @contextlib.asynccontextmanager
    async def own_redis() -> AsyncIterator[redis.asyncio.Redis]:
        with counted.open("redis"):
            async with places.redis() as client:
                yield client

    @loop_resource
    async def sql() -> AsyncIterator[AsyncEngine]:
        with counted.open("sql"):
            engine = places.sql()
            yield engine
            await engine.dispose()

    return Clients(http, own_redis, sql)


def _giving(client: T) -> Callable[[], Awaitable[T]]:
    async def give() -> T:
        return client

    return give


class ProcessWide:
    """Clients that a program keeps at module level."""

    def __init__(self, places: Places) -> None:
        self._http = places.http()
        self._redis = places.redis()
        self._sql = places.sql()
        self.clients = Clients(_giving(self._http), _giving(self._redis), _giving(self._sql))

    async def close(self) -> None:
        await self._http.aclose()
        await self._redis.aclose()
        await self._sql.dispose()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """That of a local HTTP/1.1 server."""
    with serving(_answer) as found:
        yield found


@pytest.fixture
def places(port: int, settings: Settings, valkey: EmbeddedServer, tmp_path: Path) -> Places:
    """A web server, a Valkey and a database with the numbers of all messages."""
    found = Places(port, str(valkey.ensure_running()), tmp_path / "numbers.db")

    async def fill() -> None:
        engine = found.sql()
        async with engine.begin() as connection:
            await connection.execute(text("create table numbers (n integer primary key)"))
            await connection.execute(text("insert into numbers values (:n)"), [{"n": n} for n in range(MESSAGES)])
        await engine.dispose()

    run_async_in_new_loop(fill)
    return found


def send_all(stub: StubWorker, loop: Loop, clients: Clients) -> None:
    """A thousand messages, worked off."""

    @actor(loop=loop, max_retries=0)
    async def use(number: int) -> None:
        await clients.use(number)

    try:
        for number in range(MESSAGES):
            use.send(number)
        stub.join(60)
    finally:
        del stub.broker.actors["use"]


def check_account(stub: StubWorker, client: redis.Redis) -> None:
    """Every message once, and none lost."""
    failed = [event.error.traceback for event in stub.events if event.error is not None]
    assert failed[:1] == []
    assert Counter(stub.states()) == {"started": MESSAGES, "completed": MESSAGES}
    assert stub.dead_letters == []
    assert client.hgetall("used") == {str(number).encode(): b"1" for number in range(MESSAGES)}


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """The same descriptors and threads after the block as before it; an unclosed client would warn here."""
    gc.collect()
    before, threads = len(descriptors()), threading.active_count()
    yield
    gc.collect()
    # The server's ends of the connections are closed a moment later.
    wait_until(lambda: len(descriptors()) <= before)
    wait_until(lambda: threading.active_count() <= threads)


def _start_what_stays(client: redis.Redis) -> None:
    # This client's connection, and the watchdog's thread.
    client.ping()
    run_async_in_new_loop(asyncio.sleep(0))


@pytest.mark.parametrize(("loop", "loops"), [("new", MESSAGES), ("shared", 1)])
def test_loop_resources_serve_1_000_messages_over_8_threads(
    places: Places, client: redis.Redis, loop: Loop, loops: int
) -> None:
    """Opened once for each loop and closed with it; every message is done at its first attempt."""
    counted = Counted()
    _start_what_stays(client)
    with nothing_left_open():
        with stub_worker(threads=THREADS) as stub:
            send_all(stub, loop, resources(places, counted))
            check_account(stub, client)
            assert counted.opened == dict.fromkeys(KINDS, loops)
        assert counted.closed == dict.fromkeys(KINDS, loops)
        del stub


def test_process_wide_clients_serve_1_000_messages_on_the_shared_loop(places: Places, client: redis.Redis) -> None:
    """What programs keep at module level just works there: it is one loop as long as the process lives."""
    _start_what_stays(client)
    with nothing_left_open():
        with stub_worker(threads=THREADS) as stub:
            wide = ProcessWide(places)
            send_all(stub, "shared", wide.clients)
            check_account(stub, client)
            run_async_in_shared_loop(wide.close)
        del stub, wide


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["http"])
def test_a_process_wide_client_fails_on_new_loops_which_is_what_loop_resources_are_for(
    places: Places, kind: str
) -> None:
    """The defect of those who came before: a message is given a connection that belongs to another message's loop."""

    async def first() -> None:
        wide = ProcessWide(places)
        ask = wide.clients.ask_http if kind == "http" else wide.clients.ask_redis
        await ask(1)
        # While its loop lives, another message comes, in another thread.
        with pytest.raises(RuntimeError, match="different (event )?loop|loop is closed"):
            await run_in_thread_pool(run_async_in_new_loop, lambda: ask(2))
        # A connection between two loops may not close cleanly; left open, it would warn in a test that follows.
        with contextlib.suppress(RuntimeError, OSError):
            await wide.close()

    run_async_in_new_loop(first)
    # What is left of the client is collected here, not in the tests that follow.
    gc.collect()
