"""Reads the URL of the server, and refuses one from which no connection can be made. It connects to nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis

from worker.errors import ConfigurationError
from worker.ground.secrets import mask_secrets
from worker.server.primary import Place

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

_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}
_PORTS = {"sentinel": 26379, "cluster": 6379}
_FORMS = {
    "sentinel": "redis+sentinel://host:26379,host:26379/name-of-the-primary",
    "cluster": "redis+cluster://host:6379,host:6379",
}


class Sentinels(NamedTuple):
    """The sentinels that tell where the primary is.

    Attributes:
        places: Their places.
        name: The primary's name.
        user: Their own user and password, as options of a connection.
    """

    places: tuple[Place, ...]
    name: str
    user: dict[str, str]


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A URL that was read.

    Attributes:
        plain: The URL for redis-py; with sentinels or a cluster, its host and port stand for those that they will tell.
        scheme: `redis`, `rediss` or `unix`.
        sentinels: The sentinels, or None.
        nodes: The places of nodes of a cluster; empty without one.
    """

    plain: str
    scheme: str
    sentinels: Sentinels | None = None
    nodes: tuple[Place, ...] = ()


def read_url(url: str) -> ServerUrl:
    """Reads a URL such as `redis://…`, `unix://…`, `rediss+sentinel://…` or `redis+cluster://…`.

    Raises:
        ConfigurationError: It cannot be read; one line with the URL, its password masked, and the remedy.
    """
    with complaints_about(url):
        scheme, _, rest = url.partition("://")
        scheme, plus, kind = scheme.lower().partition("+")
        if not plus:
            _check_database(url, "" if scheme == "unix" else unquote(urlsplit(url).path).strip("/"))
            return ServerUrl(url, scheme)
        if kind not in _FORMS or scheme not in {"redis", "rediss"}:
            raise ValueError(url)
        return _read_several(url, scheme, kind, rest)


def _read_several(url: str, scheme: str, kind: str, rest: str) -> ServerUrl:
    where, _, query = rest.partition("?")
    where, _, path = where.partition("/")
    user, at, nodes = where.rpartition("@")
    places = tuple(_place(node, kind) for node in nodes.split(","))
    name = unquote(path).strip("/")
    given = parse_qsl(query, keep_blank_values=True)
    if kind == "cluster":
        _check_database(url, name)
        if int(name or 0) or any(one == "db" and value != "0" for one, value in given):
            raise ConfigurationError(f"{_shown(url)}: a cluster has database 0 only: leave the number out")
        return ServerUrl(f"{scheme}://{user}{at}{places[0]}/?{query}", scheme, nodes=places)
    if not name or "/" in name:
        raise ConfigurationError(
            f"{_shown(url)}: name the primary as the sentinels do, as in {_FORMS[kind]}; a database is ?db=1"
        )
    own = {_OF_SENTINELS[one]: value for one, value in given if one in _OF_SENTINELS}
    others = urlencode([(one, value) for one, value in given if one not in _OF_SENTINELS])
    plain = f"{scheme}://{user}{at}{places[0]}/?{others}"
    return ServerUrl(plain, scheme, Sentinels(places, name, own))


def _place(node: str, kind: str) -> Place:
    found = urlsplit(f"//{node}")
    if not found.hostname:
        raise ValueError(node)
    return Place(unquote(found.hostname), found.port or _PORTS[kind])


def _check_database(url: str, name: str) -> None:
    # redis-py reads any other path as 0.
    if name and not name.isdecimal():
        raise ConfigurationError(
            f"{_shown(url)}: {name} is not the number of a database: leave it out, and set WORKER_NAMESPACE to keep "
            "environments apart"
        )


@contextlib.contextmanager
def complaints_about(url: str) -> Iterator[None]:
    """Refuses a URL from which no connection can be made; the library's own error may show the password."""
    _, _, query = url.partition("?")
    given = sorted(name for name, _ in parse_qsl(query, keep_blank_values=True))
    if ours := _NOT_IN_URLS.intersection(given):
        raise ConfigurationError(f"{_shown(url)}: its parameter {min(ours)} cannot be set in a URL: leave it out")
    try:
        yield
    except (TypeError, AttributeError, redis.RedisError) as error:
        raise ConfigurationError(
            f"{_shown(url)}: one of its parameters ({', '.join(given) or 'none'}) is unknown or has a bad value: "
            "leave it out"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"{_shown(url)} is not an address: write redis://host:6379/0, rediss://…, unix:///path, "
            f"{_FORMS['sentinel']} or {_FORMS['cluster']}"
        ) from error


def _shown(url: str) -> str:
    return f"WORKER_REDIS_URL={mask_secrets(url)}"
