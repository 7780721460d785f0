"""Where the Redis or Valkey server is, and connections to it; the only module that makes them.

Making a client connects to nothing; an embedded server is started by the first command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from worker.errors import ConfigurationError, ServerUnreachable
from worker.ground.logs import get_logger
from worker.ground.secrets import mask_url
from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.server.keys import Namespace
from worker.settings import Settings

logger = get_logger(__name__)

MAX_CONNECTIONS = 4096
"""redis-py's default of 100 made acknowledgements fail under 512 threads; a pool only opens what is used at once."""

CONNECT_TIMEOUT = 5.0
SOCKET_TIMEOUT = 30.0
"""Seconds; no command of ours blocks on the server for longer than a few."""

_OPTIONS: dict[str, Any] = {
    "max_connections": MAX_CONNECTIONS,
    "socket_timeout": SOCKET_TIMEOUT,
    "health_check_interval": 15,
    "client_name": "worker",
}


_NOT_IN_URLS = frozenset(
    {
        "credential_provider",
        "decode_responses",
        "encoding",
        "encoding_errors",
        "event_dispatcher",
        "redis_connect_func",
        "retry",
        "retry_on_error",
    }
)
"""Parameters that are objects, or would have answers read otherwise than we read them."""


class _EmbeddedPool(redis.ConnectionPool):
    """Connections to the embedded server, which the first of them starts."""

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        super().__init__(connection_class=redis.UnixDomainSocketConnection, path="", **options)
        self._server = EmbeddedServer(settings)
        self._started = False

    def reset(self) -> None:
        """Begins anew, in a forked child: whose parent may have held the lock, which redis-py would wait for."""
        self._lock = threading.RLock()
        super().reset()

    def make_connection(self) -> Any:  # noqa: ANN401 - redis-py's own type
        # redis-py holds the pool's lock here.
        if not self._started:
            self.connection_kwargs["path"] = str(self._server.ensure_running())
            self._started = True
            _announce(self._server.folder)
        return super().make_connection()


_announced: set[tuple[int, Path]] = set()


def _announce(folder: Path) -> None:
    # One line a process, however many clients it has.
    if (os.getpid(), folder) not in _announced:
        _announced.add((os.getpid(), folder))
        logger.info("using the embedded Valkey", data=str(folder))


def connect(settings: Settings, *, timeout: float = SOCKET_TIMEOUT) -> RedisClient:
    """A client for the configured server and namespace, or for the embedded server where none is configured.

    Args:
        settings: Which server it is.
        timeout: Seconds without an answer after which a connection is given up.

    Raises:
        ConfigurationError: No server is configured and `WORKER_EMBEDDED=never` forbids the embedded one,
            or the URL cannot be read.
    """
    namespace = Namespace(settings.namespace)
    own = _OPTIONS | {"socket_timeout": timeout}
    if settings.redis_url is None:
        if settings.embedded == "never":
            raise ConfigurationError("no server: set WORKER_REDIS_URL (WORKER_EMBEDDED=never forbids the embedded one)")
        return RedisClient(namespace, connection_pool=_EmbeddedPool(settings, own))
    url = settings.redis_url.get_secret_value()
    options = own | {"socket_connect_timeout": min(CONNECT_TIMEOUT, timeout), "socket_keepalive": True}
    if url.startswith("unix:"):
        options = own
    with _complaints_about(url):
        pool = redis.ConnectionPool.from_url(url, retry=Retry(_backoff(), 2), **options)
        pool.connection_class(**pool.connection_kwargs)  # which connects to nothing
    return RedisClient(namespace, connection_pool=pool)


async def aconnect(settings: Settings) -> AsyncRedisClient:
    """Does what `connect` does for the running loop; where no server is configured, the embedded one is running then.

    Raises:
        ConfigurationError: As `connect`.
    """
    connect(settings).close()  # refuses what is wrong
    # The library's own would have who asks wait for seconds while the server is away.
    namespace = Namespace(settings.namespace)
    options = _OPTIONS | {"retry": AsyncRetry(_backoff(), 2)}
    if settings.redis_url is None:
        server = EmbeddedServer(settings)
        path = str(await asyncio.to_thread(server.ensure_running))
        _announce(server.folder)
        kind = redis_asyncio.UnixDomainSocketConnection
        return _owning(namespace, redis_asyncio.ConnectionPool(connection_class=kind, path=path, **options))
    url = settings.redis_url.get_secret_value()
    options |= {} if url.startswith("unix:") else {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_keepalive": True}
    with _complaints_about(url):
        pool = redis_asyncio.ConnectionPool.from_url(url, **options)
        pool.connection_class(**pool.connection_kwargs)
    return _owning(namespace, pool)


def _owning(namespace: Namespace, pool: redis_asyncio.ConnectionPool) -> AsyncRedisClient:
    """A client that closes its connections when it is closed."""
    client = AsyncRedisClient(namespace, connection_pool=pool)
    client.auto_close_connection_pool = True
    return client


@contextlib.contextmanager
def _complaints_about(url: str) -> Iterator[None]:
    """Refuses a URL from which no connection can be made; what the library says of it may hold the password."""
    shown = f"WORKER_REDIS_URL={mask_url(url)}"
    try:
        _, _, query = url.partition("?")
        given = sorted(name for name, _ in parse_qsl(query, keep_blank_values=True))
        if ours := _NOT_IN_URLS.intersection(given):
            raise ConfigurationError(f"{shown}: its parameter {min(ours)} cannot be set in a URL: leave it out")
        if (name := _path_of(url)) and not name.isdecimal():
            raise ConfigurationError(
                f"{shown}: {name} is no number of a database: leave it out, and set WORKER_NAMESPACE to keep "
                "environments apart"
            )
        yield
    except (TypeError, AttributeError, redis.RedisError) as error:
        raise ConfigurationError(
            f"{shown}: one of its parameters ({', '.join(given) or 'none'}) is unknown or has a bad value: leave it out"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"{shown} is no address: write redis://host:6379/0, rediss://… or unix:///path"
        ) from error


def _path_of(url: str) -> str:
    """What should be a database's number; redis-py takes any other for 0."""
    return "" if url.startswith("unix:") else unquote(urlsplit(url).path).strip("/")


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=1)


def streams_in(answer: Any) -> list[tuple[bytes, list[Any]]]:  # noqa: ANN401 - as the server answers
    """The streams that were read, each with its entries; RESP2 and RESP3 write them differently."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(stream, entries[0]) for stream, entries in answer.items()]
    return list(answer)


def address(settings: Settings) -> str:
    """The server's address for people, its password masked."""
    if settings.redis_url is None:
        return f"embedded, in {settings.data_dir}"
    return mask_url(settings.redis_url.get_secret_value())


def check_server(client: redis.Redis, settings: Settings) -> None:
    """Asks the server for a sign of life.

    Raises:
        ServerUnreachable: It gave none; one line with the address and what to check.
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise ServerUnreachable(
            f"no answer from Redis at {address(settings)} ({_reason(error)}): "
            "check WORKER_REDIS_URL, that the server runs, and that this machine may reach it"
        ) from error


def _reason(error: redis.RedisError) -> str:
    return " ".join(str(error).split()) or type(error).__name__
