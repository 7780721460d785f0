"""Connections to the Redis or Valkey server, and its address; the only module that makes connections.

Making a client opens no connection; the first command starts an embedded server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff

from worker.errors import ConfigurationError
from worker.ground.secrets import mask_secrets
from worker.server.async_client import AsyncRedisClient
from worker.server.bounds import BoundedRetry
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.server.keys import Namespace
from worker.server.pools import EmbeddedPool, announce
from worker.server.troubles import trouble
from worker.server.wires import DEMOTED, AsyncTlsWire, AsyncUnixWire, AsyncWire, Generations, TlsWire, UnixWire, Wire
from worker.settings import Settings

MAX_CONNECTIONS = 4096
"""The most connections of a pool: with redis-py's default of 100, acknowledgements failed under 512 threads."""

_TRIES_AGAIN = 2

_OPTIONS: dict[str, Any] = {"max_connections": MAX_CONNECTIONS, "health_check_interval": 0, "client_name": "worker"}

_WIRES: dict[str, Any] = {"rediss": TlsWire, "unix": UnixWire}
_ASYNC_WIRES: dict[str, Any] = {"rediss": AsyncTlsWire, "unix": AsyncUnixWire}


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


def connect(settings: Settings, *, timeout: float | None = None) -> RedisClient:
    """A client for the configured server and namespace, or for the embedded server if no server is configured.

    Args:
        settings: The settings that name the server.
        timeout: Seconds that a call may take as a whole, or None for WORKER_SERVER_TIMEOUT.

    Raises:
        ConfigurationError: No server is configured and `WORKER_EMBEDDED=never` forbids the embedded one,
            or the URL cannot be read.
    """
    namespace = Namespace(settings.namespace)
    bound = settings.server_timeout.total_seconds() if timeout is None else timeout
    # Calls without a bound of their own, such as a transaction's, have at least that of each wait.
    options = _options(bound) | {"retry": BoundedRetry(_backoff(), _TRIES_AGAIN, WORTH_ANOTHER_TRY)}
    if settings.redis_url is None:
        if settings.embedded == "never":
            raise ConfigurationError("no server: set WORKER_REDIS_URL (WORKER_EMBEDDED=never forbids the embedded one)")
        return RedisClient(namespace, bound=bound, connection_pool=EmbeddedPool(settings, options))
    url = settings.redis_url.get_secret_value()
    with _complaints_about(url):
        pool = redis.ConnectionPool.from_url(url, **options | _of_network(url))
        pool.connection_class = _WIRES.get(_scheme(url), Wire)
        pool.connection_class(**pool.connection_kwargs)  # which connects to nothing
    return RedisClient(namespace, bound=bound, connection_pool=pool)


async def aconnect(settings: Settings) -> AsyncRedisClient:
    """A client for the running loop, like that of `connect`; without a configured server, starts the embedded one.

    Raises:
        ConfigurationError: The same as in `connect`.
        ServerUnreachable: The embedded server did not start, or runs and does not answer.
    """
    connect(settings).close()  # refuses bad settings
    namespace = Namespace(settings.namespace)
    bound = settings.server_timeout.total_seconds()
    # With the library's own retries, callers would wait for seconds while the server is away.
    options = _options(bound) | {"retry": AsyncRetry(_backoff(), _TRIES_AGAIN, _OF_SERVERS)}
    if settings.redis_url is None:
        server = EmbeddedServer(settings)
        path = str(await asyncio.to_thread(server.ensure_running))
        announce(server.folder)
        return _owning(
            namespace, bound, redis_asyncio.ConnectionPool(connection_class=AsyncUnixWire, path=path, **options)
        )
    url = settings.redis_url.get_secret_value()
    with _complaints_about(url):
        pool = redis_asyncio.ConnectionPool.from_url(url, **options | _of_network(url))
        pool.connection_class = _ASYNC_WIRES.get(_scheme(url), AsyncWire)  # from_url takes none beside a rediss: URL
        pool.connection_class(**pool.connection_kwargs)
    return _owning(namespace, bound, pool)


_OF_SERVERS: tuple[type[redis.RedisError], ...] = (redis.ConnectionError, redis.TimeoutError, *DEMOTED)
WORTH_ANOTHER_TRY: tuple[type[Exception], ...] = (*_OF_SERVERS, TimeoutError)
"""The errors after which a call is tried again within its bound; a server that was demoted has not carried it out."""


def _options(bound: float) -> dict[str, Any]:
    return _OPTIONS | {"socket_timeout": bound, "generations": Generations()}


def _of_network(url: str) -> dict[str, Any]:
    return {} if _scheme(url) == "unix" else {"socket_keepalive": True}


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _owning(namespace: Namespace, bound: float, pool: redis_asyncio.ConnectionPool) -> AsyncRedisClient:
    """A client that closes its connections when it is closed."""
    client = AsyncRedisClient(namespace, bound=bound, connection_pool=pool)
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


def check_server(client: RedisClient, settings: Settings) -> None:
    """Asks the server for a sign of life; a server whose disk or memory is full gives one too.

    Raises:
        ServerUnreachable: The server gave none; the error is one line with the address and the remedy.
        ServerRefused: The server refuses; the error is one line with its reason and the remedy.
    """
    try:
        client.exists(client.namespace.layout)
    except (redis.RedisError, OSError) as error:
        raise trouble(error, address(settings)) from error
