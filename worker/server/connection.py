"""Connections to the Redis or Valkey server, and its address; the only module that makes connections.

Making a client opens no connection; the first command starts an embedded server.
"""

from __future__ import annotations

import asyncio
from typing import Any

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
from worker.server.finding import primary_of
from worker.server.keys import Namespace
from worker.server.pools import EmbeddedPool, announce
from worker.server.primary import Primary
from worker.server.troubles import trouble
from worker.server.urls import ServerUrl, complaints_about, read_url
from worker.server.wires import DEMOTED, AsyncTlsWire, AsyncUnixWire, AsyncWire, Generations, TlsWire, UnixWire, Wire
from worker.settings import Settings

MAX_CONNECTIONS = 4096
"""The most connections of a pool: with redis-py's default of 100, acknowledgements failed under 512 threads."""

_TRIES_AGAIN = 2

_BETWEEN_TRIES = 0.1
"""Seconds between two tries on the average, while another server becomes the primary."""

_OPTIONS: dict[str, Any] = {"max_connections": MAX_CONNECTIONS, "health_check_interval": 0, "client_name": "worker"}

_WIRES: dict[str, Any] = {"rediss": TlsWire, "unix": UnixWire}
_ASYNC_WIRES: dict[str, Any] = {"rediss": AsyncTlsWire, "unix": AsyncUnixWire}


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
    options = _options(bound)
    if settings.redis_url is None:
        if settings.embedded == "never":
            raise ConfigurationError("no server: set WORKER_REDIS_URL (WORKER_EMBEDDED=never forbids the embedded one)")
        options["retry"] = tries_again(_TRIES_AGAIN)
        return RedisClient(namespace, bound=bound, connection_pool=EmbeddedPool(settings, options))
    given = settings.redis_url.get_secret_value()
    url = read_url(given)
    with complaints_about(given):
        pool = redis.ConnectionPool.from_url(url.plain, **options | _of_network(url))
        pool.connection_class = _WIRES.get(url.scheme, Wire)
        primary = primary_of(url, pool.connection_kwargs, namespace, bound)
        pool.connection_kwargs |= {"retry": tries_again(_TRIES_AGAIN, primary, bound)}
        pool.connection_class(**pool.connection_kwargs)  # which connects to nothing
    if primary is not None:
        pool.connection_kwargs["primary"] = primary
    return RedisClient(namespace, bound=bound, primary=primary, connection_pool=pool)


async def aconnect(settings: Settings) -> AsyncRedisClient:
    """A client for the running loop, like that of `connect`; without a configured server, starts the embedded one.

    Raises:
        ConfigurationError: The same as in `connect`.
        ServerUnreachable: The embedded server did not start, or runs and does not answer.
    """
    blocking = connect(settings)  # refuses bad settings
    blocking.close()
    namespace = Namespace(settings.namespace)
    bound = settings.server_timeout.total_seconds()
    # With the library's own retries, callers would wait for seconds while the server is away.
    tries = blocking.connection_pool.connection_kwargs["retry"].get_retries()
    options = _options(bound) | {"retry": AsyncRetry(_backoff(blocking.primary), tries, _OF_SERVERS)}
    if settings.redis_url is None:
        server = EmbeddedServer(settings)
        path = str(await asyncio.to_thread(server.ensure_running))
        announce(server.folder)
        return _owning(
            namespace, bound, redis_asyncio.ConnectionPool(connection_class=AsyncUnixWire, path=path, **options)
        )
    given = settings.redis_url.get_secret_value()
    url = read_url(given)
    with complaints_about(given):
        pool = redis_asyncio.ConnectionPool.from_url(url.plain, **options | _of_network(url))
        pool.connection_class = _ASYNC_WIRES.get(url.scheme, AsyncWire)  # from_url takes none beside a rediss: URL
        pool.connection_class(**pool.connection_kwargs)
    if blocking.primary is not None:
        pool.connection_kwargs["primary"] = blocking.primary
    return _owning(namespace, bound, pool)


_OF_SERVERS: tuple[type[redis.RedisError], ...] = (redis.ConnectionError, redis.TimeoutError, *DEMOTED)
_WORTH_ANOTHER_TRY: tuple[type[Exception], ...] = (*_OF_SERVERS, TimeoutError)
"""The errors after which a call is tried again within its bound; a server that was demoted has not carried it out."""


def _options(bound: float) -> dict[str, Any]:
    return _OPTIONS | {"socket_timeout": bound, "generations": Generations()}


def _of_network(url: ServerUrl) -> dict[str, Any]:
    return {} if url.scheme == "unix" else {"socket_keepalive": True}


def tries_again(usual: int, primary: Primary | None = None, bound: float = 0.0) -> BoundedRetry:
    """The further tries of a call: so many as usual, or where another server may become the primary, for its bound."""
    tries = usual if primary is None else max(usual, round(bound / _BETWEEN_TRIES))
    return BoundedRetry(_backoff(primary), tries, _WORTH_ANOTHER_TRY)


def _owning(namespace: Namespace, bound: float, pool: redis_asyncio.ConnectionPool) -> AsyncRedisClient:
    """A client that closes its connections when it is closed."""
    client = AsyncRedisClient(namespace, bound=bound, connection_pool=pool)
    client.auto_close_connection_pool = True
    return client


def _backoff(primary: Primary | None) -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=1 if primary is None else 2 * _BETWEEN_TRIES)


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


def whereabouts(client: RedisClient, settings: Settings) -> str:
    """The server's address for people, with the place of the primary where it was found."""
    found = client.primary.last if client.primary is not None else None
    return address(settings) if found is None else f"{address(settings)} (primary {found})"


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
