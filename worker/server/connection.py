"""Connections to the Redis or Valkey server, and its address; the only module that makes connections.

Making a client opens no connection; the first command starts an embedded server.
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
from worker.ground.secrets import mask_secrets
from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.server.keys import Namespace
from worker.settings import Settings

logger = get_logger(__name__)

MAX_CONNECTIONS = 4096
"""The most connections of a pool: with redis-py's default of 100, acknowledgements failed under 512 threads."""

CONNECT_TIMEOUT = 5.0
SOCKET_TIMEOUT = 30.0
"""Seconds without an answer after which a connection is closed; our commands block for a few seconds at most."""

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
"""Parameters that are objects, or that change the form of answers."""


class _EmbeddedPool(redis.ConnectionPool):
    """Connections to the embedded server, which the first of them starts."""

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        super().__init__(connection_class=redis.UnixDomainSocketConnection, path="", **options)
        self._server = EmbeddedServer(settings)
        self._started = False

    def reset(self) -> None:
        """Resets the pool in a forked child; its parent may have held the lock, for which redis-py would wait."""
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
    # One line in each process, for any number of clients.
    if (os.getpid(), folder) not in _announced:
        _announced.add((os.getpid(), folder))
        logger.info("using the embedded Valkey", data=str(folder))


def connect(settings: Settings, *, timeout: float = SOCKET_TIMEOUT) -> RedisClient:
    """A client for the configured server and namespace, or for the embedded server if no server is configured.

    Args:
        settings: The settings that name the server.
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
    """A client for the running loop, like that of `connect`; without a configured server, starts the embedded one.

    Raises:
        ConfigurationError: The same as in `connect`.
    """
    connect(settings).close()  # refuses bad settings
    # With the library's own retries, callers would wait for seconds while the server is away.
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
    """Refuses a URL from which no connection can be made; the library's own error may show the password."""
    shown = f"WORKER_REDIS_URL={mask_secrets(url)}"
    try:
        _, _, query = url.partition("?")
        given = sorted(name for name, _ in parse_qsl(query, keep_blank_values=True))
        if ours := _NOT_IN_URLS.intersection(given):
            raise ConfigurationError(f"{shown}: its parameter {min(ours)} cannot be set in a URL: leave it out")
        if (name := _path_of(url)) and not name.isdecimal():
            raise ConfigurationError(
                f"{shown}: {name} is not the number of a database: leave it out, and set WORKER_NAMESPACE to keep "
                "environments apart"
            )
        yield
    except (TypeError, AttributeError, redis.RedisError) as error:
        raise ConfigurationError(
            f"{shown}: one of its parameters ({', '.join(given) or 'none'}) is unknown or has a bad value: leave it out"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"{shown} is not an address: write redis://host:6379/0, rediss://… or unix:///path"
        ) from error


def _path_of(url: str) -> str:
    """The path of the URL, which should be a database's number; redis-py reads any other path as 0."""
    return "" if url.startswith("unix:") else unquote(urlsplit(url).path).strip("/")


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=1)


def streams_in(answer: Any) -> list[tuple[bytes, list[Any]]]:  # noqa: ANN401 - as the server answers
    """The streams in an answer, each with its entries; RESP2 and RESP3 write them differently."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(stream, entries[0]) for stream, entries in answer.items()]
    return list(answer)


def address(settings: Settings) -> str:
    """The server's address for people, its password masked."""
    if settings.redis_url is None:
        return f"embedded, in {settings.data_dir}"
    return mask_secrets(settings.redis_url.get_secret_value())


def check_server(client: redis.Redis, settings: Settings) -> None:
    """Asks the server for a sign of life.

    Raises:
        ServerUnreachable: The server gave none; the error is one line with the address and the remedy.
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
