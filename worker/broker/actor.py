"""`@actor`: a function, async or sync, becomes a Dramatiq actor with bridge and status built in.

It is the shorthand for a plain Dramatiq actor with a `ProcessingStatusContext` around a call through the bridge. Both
forms work side by side.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

import dramatiq
from dramatiq.brokers.stub import StubBroker

from worker.broker import A_DAY, enqueue_elsewhere, enqueue_once, enqueue_unique, ensure_broker
from worker.broker.actor_body import with_status
from worker.broker.arguments import check_arguments
from worker.broker.runners import CONCURRENCY
from worker.broker.sent import Sent, as_sent
from worker.broker.streams import StreamBroker
from worker.errors import DeclaredTwice
from worker.loops.callables import makes_coroutine
from worker.loops.thread_pool import run_in_thread_pool

P = ParamSpec("P")
R = TypeVar("R")


class SendInLoopWarning(RuntimeWarning):
    """`send` was called inside a running event loop, which it blocks for a round trip: `await asend(…)` instead."""


class Actor(dramatiq.Actor[P, R]):
    """A Dramatiq actor whose sends check the arguments and answer `Sent`, with `asend` and the like for async code."""

    def __init__(self, fn: Callable[P, R], *, broker: dramatiq.Broker, actor_name: str, **declared: Any) -> None:  # noqa: ANN401 - as in Dramatiq
        """Declares the actor.

        Raises:
            DeclaredTwice: The broker has an actor of this name.
        """
        if (known := broker.actors.get(actor_name)) is not None:
            raise DeclaredTwice(actor_name, known.fn.__module__)
        super().__init__(fn, broker=broker, actor_name=actor_name, **declared)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Sent[R]:
        """Enqueues a message for this actor.

        Warns once (`SendInLoopWarning`) when called inside a running event loop.

        Raises:
            MessageRefused: An argument is not plain JSON, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments.
        """
        _warn_in_loop()
        return self.send_with_options(args=args, kwargs=kwargs)

    async def asend(self, *args: P.args, **kwargs: P.kwargs) -> Sent[R]:
        """Enqueues a message for this actor without blocking the running loop.

        Raises:
            MessageRefused: An argument is not plain JSON, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments.
        """
        return await run_in_thread_pool(self.send_with_options, args=args, kwargs=kwargs)

    def send_with_options(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        delay: timedelta | int | None = None,
        **options: Any,  # noqa: ANN401 - as in Dramatiq
    ) -> Sent[R]:
        """Enqueues a message with options, as in Dramatiq: `delay` is a `timedelta`, or milliseconds.

        Raises:
            MessageRefused: An argument is not plain JSON, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments.
        """
        if not isinstance(self.broker, StreamBroker):  # which checks every message that it enqueues
            check_arguments(self, args, kwargs or {})
        return as_sent(super().send_with_options(args=args, kwargs=kwargs, delay=delay, **options))

    def send_many(self, messages: Iterable[dramatiq.Message[R]]) -> list[Sent[R]]:
        """Enqueues thousands of messages in a few round trips: `a.send_many(a.message(id) for id in ids)`.

        All are checked and encoded before the first is stored.

        Raises:
            MessageRefused: One is not plain JSON, or too large.
            ServerUnreachable: The server did not answer.
            TypeError: An actor cannot be called with the arguments of one.
        """
        _warn_in_loop()
        return self._enqueue_many(messages)

    async def asend_many(self, messages: Iterable[dramatiq.Message[R]]) -> list[Sent[R]]:
        """Does what `send_many` does without blocking the running loop."""
        return await run_in_thread_pool(self._enqueue_many, messages)

    def send_unique(
        self,
        *,
        key: str,
        ttl: timedelta | float = A_DAY,
        until: Literal["start", "end"] = "end",
        delay: timedelta | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] = MappingProxyType({}),
    ) -> Sent[R]:
        """Enqueues a message, unless a message with this key waits or runs: then the answer bears that message's id.

        With `until="end"` a message holds its key until it has ended for good, through all of its retries. With
        `until="start"` it holds it only while it waits: its first attempt begins when the server has freed the key, and
        its retries do not take it again. Dramatiq's own brokers have no keys: there, every message is enqueued.

        Args:
            key: The key, such as `merge:42`; all actors share the keys.
            ttl: Seconds, or a `timedelta`, after which the key is free, also if the message has not ended; counted from
                when the message is due.
            until: The moment at which the message gives its key up.
            delay: The shortest time for which the message waits, or None.
            args: The actor's positional arguments.
            kwargs: The actor's keyword arguments.

        Raises:
            ValueError: `until` is neither 'start' nor 'end'.
            MessageRefused: An argument is not plain JSON, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments.
        """
        _warn_in_loop()
        message = self.message_with_options(args=tuple(args), kwargs=dict(kwargs))
        return enqueue_unique(message, key=key, ttl=ttl, until=until, delay=delay)

    def send_once(
        self,
        *,
        message_id: str,
        delay: timedelta | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] = MappingProxyType({}),
    ) -> Sent[R]:
        """Enqueues a message with an id of the caller's, only if this id was never seen.

        An id was seen if the history has a message with it, or if it was sent so in the last `WORKER_SEEN`, counted
        from when that message was due. Dramatiq's own brokers remember no ids: there, every message is enqueued.

        Args:
            message_id: The id, such as the one of a row or an event that is relayed.
            delay: The shortest time for which the message waits, or None.
            args: The actor's positional arguments.
            kwargs: The actor's keyword arguments.

        Raises:
            MessageRefused: An argument is not plain JSON, the id is no id, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments.
        """
        _warn_in_loop()
        message = self.message_with_options(args=tuple(args), kwargs=dict(kwargs)).copy(message_id=message_id)
        return enqueue_once(message, delay=delay)

    def _enqueue_many(self, messages: Iterable[dramatiq.Message[R]]) -> list[Sent[R]]:
        if isinstance(self.broker, StreamBroker):
            return self.broker.enqueue_many(messages)
        return [enqueue_elsewhere(self.broker, message) for message in messages]


class ActorDecorator(Protocol):
    """The decorator that `@actor(…)` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Actor[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Actor[P, R]: ...


@overload
def actor(function: Callable[P, Awaitable[R]], /) -> Actor[P, R]: ...


@overload
def actor(function: Callable[P, R], /) -> Actor[P, R]: ...


@overload
def actor(
    *,
    queue: str = "default",
    subject: tuple[str, ...] = (),
    time_limit: timedelta | float | None = None,
    max_retries: int | None = None,
    at_most_once: bool = False,
    loop: Literal["shared", "new"] = "shared",
    concurrency: int | None = None,
) -> ActorDecorator: ...


def actor(
    function: Callable[..., Any] | None = None,
    /,
    *,
    queue: str = "default",
    subject: tuple[str, ...] = (),
    time_limit: timedelta | float | None = None,
    max_retries: int | None = None,
    at_most_once: bool = False,
    loop: Literal["shared", "new"] = "shared",
    concurrency: int | None = None,
) -> Actor[..., Any] | ActorDecorator:
    """Makes a Dramatiq actor of a function, async or sync; `@actor` or `@actor(…)`.

    Each attempt runs inside a `ProcessingStatusContext` that bears the function's name. The first use in a program
    that has set no broker binds ours, from the settings; it connects when something is sent or a worker starts.

    Args:
        function: The function; its arguments must be plain JSON values.
        queue: The queue of its messages.
        subject: Names of the parameters that are a message's subject; the events carry their values.
        time_limit: Seconds, or a `timedelta`, that an attempt may take, or None for `WORKER_TIME_LIMIT`.
        max_retries: The number of retries of a failed message, or None for `WORKER_MAX_RETRIES`.
        at_most_once: Whether an attempt begins only after the server has stored its begin, and is the message's last:
            after an error, an interruption or the loss of its worker, the message is a dead letter.
        loop: The loop of an async function: `"shared"`, the process's one long-lived loop, on which clients at module
            level work, or `"new"`, a new loop for each message.
        concurrency: The most attempts of this actor that a process runs at once on its shared loop, apart from those of
            other actors; or None for a place among the `WORKER_CONCURRENCY` that all others share.

    Raises:
        ValueError: `subject` names something that is not a parameter, `queue` is not a valid name, `loop` is neither
            'shared' nor 'new', `concurrency` is less than 1, or not for an async function on the shared loop, or
            `at_most_once` cannot be promised: with retries, or with another broker.
    """
    if loop not in ("shared", "new"):
        raise ValueError(f"loop={loop!r}: write 'shared' or 'new'")
    options: dict[str, Any] = {}
    if time_limit is not None:
        seconds = time_limit.total_seconds() if isinstance(time_limit, timedelta) else time_limit
        options["time_limit"] = seconds * 1000
    if max_retries is not None:
        options["max_retries"] = max_retries
    if at_most_once:
        _check_at_most_once(ensure_broker())
        options["at_most_once"] = True

    if concurrency is not None:
        options[CONCURRENCY] = concurrency

    def decorate(function: Callable[..., Any]) -> Actor[..., Any]:
        if concurrency is not None:
            _check_concurrency(concurrency, loop, function)
        declare = dramatiq.actor(queue_name=queue, broker=ensure_broker(), actor_class=Actor, **options)
        return cast("Actor[..., Any]", declare(with_status(function, subject, loop)))

    return cast("ActorDecorator", decorate) if function is None else decorate(function)


def _check_at_most_once(broker: dramatiq.Broker) -> None:
    if not isinstance(broker, StreamBroker | StubBroker):
        raise ValueError(  # noqa: TRY004 - what is asked for is wrong
            f"at_most_once=True: {type(broker).__name__} may deliver a message again; set WORKER_BROKER=streams"
        )


def _check_concurrency(concurrency: int, loop: str, function: Callable[..., Any]) -> None:
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency}: write a number from 1")
    if loop != "shared" or not makes_coroutine(function):
        raise ValueError(
            f"concurrency={concurrency} is for async actors on the shared loop; "
            "the threads of a worker are those of `dramatiq --threads`"
        )


_warned = False


def _warn_in_loop() -> None:
    global _warned
    if _warned:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    _warned = True
    warnings.warn(
        "send() blocks the running event loop while it talks to Redis: use `await actor.asend(…)`",
        SendInLoopWarning,
        stacklevel=3,
    )
