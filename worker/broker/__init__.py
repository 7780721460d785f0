"""The one place that builds the broker, `create_broker(settings)`, and sends that work with any broker."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import dramatiq
from dramatiq import broker as dramatiq_broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import (
    AgeLimit,
    GroupCallbacks,
    Middleware,
)
from pydantic import SecretStr

from worker.attempts.callbacks import Callbacks, Pipelines
from worker.attempts.retry_policy import RetryPolicy
from worker.attempts.running import RunningAttempts
from worker.attempts.runs import Runs
from worker.attempts.shutdown import ShutdownNotifications
from worker.attempts.time_limit import TimeLimit
from worker.broker.adopting import Nowhere, WatchedOnDemand, adopt, is_strange
from worker.broker.backend import NamespacedBackend
from worker.broker.chain import OneOfAKind, is_as_ever
from worker.broker.composition import tell_repeats_apart
from worker.broker.encoders import check_encoder
from worker.broker.enqueueing import send_all
from worker.broker.group_counts import CountedGroups
from worker.broker.lifecycle import Lifecycle
from worker.broker.process import Process
from worker.broker.sent import Sent
from worker.broker.streams import StreamBroker
from worker.broker.terms import read_terms
from worker.errors import ConfigurationError, WorkerError
from worker.ground.texts import shown
from worker.history.events import Writer
from worker.history.writer import default_writer
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.keys import Namespace
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.threads.greenlets import call_among_greenlets
from worker.threads.os_threads import GEVENT

__all__ = ["Broker", "create_broker", "enqueue_unique", "ensure_broker", "for_actors", "message_middleware"]

R = TypeVar("R")


def create_broker(settings: Settings | None = None, *, middleware: Iterable[Middleware] = ()) -> dramatiq.Broker:
    """Makes the broker for these settings, which become the settings of this process.

    It opens no connection; the first command starts an embedded server. Bind the broker with `dramatiq.set_broker`,
    before any actor is declared.

    Args:
        settings: The settings, or None to read them from the environment and the project's `.env`.
        middleware: Further middleware, such as `Results`, added behind ours. One that is of a kind with one of ours
            takes its place, as with the broker's `add_middleware`, and a line in the log tells it.

    Raises:
        ConfigurationError: A setting is not valid; or the program has set an encoder that does not give JSON.
        TypeError: `settings` is no `Settings`, or `middleware` holds something else.
    """
    if settings is None:
        settings = Settings.in_force()
    client = _begin(settings)
    broker = _lists_broker(settings, client) if settings.broker == "redis-lists" else _stream_broker(settings, client)
    for one in _each(middleware):
        broker.add_middleware(one)
    return broker


class Broker(StreamBroker):
    """Our broker on streams as a class, for programs that name theirs in a configuration, as with Django and Flask.

    It opens no connection; its settings become those of this process.

    Args:
        url: The URL of the server, or None for `WORKER_REDIS_URL`.
        middleware: The middleware of the program, added behind ours. Dramatiq's own, as it has them by default, change
            nothing: ours do their work.

    Raises:
        ConfigurationError: A setting is not valid, or is `WORKER_BROKER=redis-lists`; or the program has set an encoder
            that does not give JSON.
        TypeError: `url` is no text, or `middleware` holds something else.
    """

    def __init__(self, *, url: str | None = None, middleware: Iterable[Middleware] | None = None) -> None:
        settings = Settings.in_force()
        if settings.broker != "streams":
            raise ConfigurationError(
                f"{settings.as_written('broker')} contradicts the class worker.Broker, which works on streams: unset it"
            )
        if not isinstance(url, str | None):
            raise TypeError(f"url={shown(repr(url))}: write a text, such as 'redis://host:6379', or None")
        if url is not None:
            settings = settings.model_copy(update={"redis_url": SecretStr(url)})
        client, running = _begin(settings), RunningAttempts()
        super().__init__(settings, client, lambda: connect(settings), _on_streams(settings, client, running), running)
        for one in _each(middleware or ()):
            if not is_as_ever(one):
                self.add_middleware(one)


def _begin(settings: Settings) -> RedisClient:
    """Makes these the settings of this process, which will have a broker; a client of their server."""
    before = Settings.in_force()
    put_in_force(settings)
    try:
        client = connect(settings)
        check_encoder()
    except WorkerError:
        put_in_force(before)  # a program that goes on must not have what it could not begin with
        raise
    tell_repeats_apart()
    return client


def _each(middleware: Iterable[Middleware]) -> Iterable[Middleware]:
    if not isinstance(middleware, Iterable):
        raise TypeError(f"middleware={shown(repr(middleware))}: write a list, such as [Results(backend=…)]")
    return middleware


def _stream_broker(settings: Settings, client: RedisClient) -> dramatiq.Broker:
    running = RunningAttempts()
    return StreamBroker(settings, client, lambda: connect(settings), _on_streams(settings, client, running), running)


def _on_streams(settings: Settings, client: RedisClient, running: RunningAttempts) -> list[Middleware]:
    return [
        Process(settings, client),
        Lifecycle(running, settings.concurrency),
        *message_middleware(settings, None, running),
        CountedGroups(NamespacedBackend(client)),
    ]


def _lists_broker(settings: Settings, client: RedisClient) -> dramatiq.Broker:
    if client.is_in_cluster:
        raise ConfigurationError(
            f"{settings.as_written('broker')} cannot use a cluster, which would spread its keys: unset it"
        )
    middleware = [
        Process(settings, client),
        *message_middleware(settings, default_writer(), RunningAttempts()),
        GroupCallbacks(NamespacedBackend(client)),
    ]
    kind = _GreenletsListsBroker if GEVENT else _ListsBroker
    return kind(client=client, middleware=middleware, namespace=_lists_namespace(settings))  # type: ignore[no-untyped-call]


def _lists_namespace(settings: Settings) -> str:
    """The namespace of Dramatiq's lists: `dramatiq`, as its own programs have it, or a part of ours if that is set."""
    is_default = settings.namespace == Settings.model_fields["namespace"].default
    return "dramatiq" if is_default else Namespace(settings.namespace).of_dramatiq("lists")


class _ListsBroker(OneOfAKind, RedisBroker):
    """Dramatiq's own broker, with one middleware of each kind."""


class _GreenletsListsBroker(_ListsBroker):
    """Dramatiq's own broker under gevent: its connections belong to greenlets, but threads of services send too."""

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        return call_among_greenlets(super().enqueue, message, delay=delay)


def message_middleware(settings: Settings, recorder: Writer | None, running: RunningAttempts) -> list[Middleware]:
    """The middleware around each message, the outermost first: the run ends after all other decisions.

    Args:
        settings: The settings with the defaults.
        recorder: The recorder of events, or None if the broker records them itself.
        running: The attempts that run in this process.
    """
    grace = settings.grace.total_seconds() if recorder is None else None
    return [
        Runs(running, recorder),
        AgeLimit(),
        TimeLimit(running, settings.time_limit.total_seconds() * 1000),
        ShutdownNotifications(running, grace),
        Callbacks(),
        Pipelines(),
        RetryPolicy(
            max_retries=settings.max_retries,
            min_backoff=round(settings.min_backoff.total_seconds() * 1000),
            max_backoff=round(settings.max_backoff.total_seconds() * 1000),
        ),
    ]


def ensure_broker() -> dramatiq.Broker:
    """The program's broker; or our own, made from the settings, if the program has not set one."""
    # Dramatiq's get_broker would silently make a broker for localhost.
    if dramatiq_broker.global_broker is None:
        dramatiq.set_broker(create_broker())
    return dramatiq.get_broker()


def for_actors(broker: dramatiq.Broker) -> dramatiq.Broker:
    """The broker itself, with the middleware of our actors if it is somebody else's."""
    if is_strange(broker):
        adopt(broker, message_middleware(Settings.in_force(), Nowhere(), WatchedOnDemand()))
    return broker


def enqueue_unique(
    message: dramatiq.Message[R],
    *,
    key: str,
    ttl: timedelta | str | float | None = None,
    until: Literal["start", "end"] = "end",
    delay: timedelta | str | None = None,
) -> Sent[R]:
    """Does what `Actor.send_unique` does, for a message of any actor.

    Raises:
        ValueError: `until` is neither 'start' nor 'end'.
        MessageRefused: The message is not plain JSON, or is too large.
        ServerUnreachable: The server did not answer.
        TypeError: The actor cannot be called with the message's arguments, or the delay is a bare number.
    """
    return send_all(ensure_broker(), [message], read_terms(key=key, ttl=ttl, until=until, delay=delay))[0]
