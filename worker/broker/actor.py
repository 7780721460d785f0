"""`Actor`: a Dramatiq actor whose sends check the arguments and answer `Sent`. It never changes how one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, TypeVar

import dramatiq

from worker.attempts.option_values import check_values
from worker.broker.adopting import call_unrecorded, is_recorded
from worker.broker.arguments import check_kinds
from worker.broker.configured import Configured, by_name, check_id, configured
from worker.broker.enqueueing import enqueue_elsewhere, send_all
from worker.broker.sent import Sent, as_sent
from worker.broker.streams import StreamBroker
from worker.broker.terms import read_terms
from worker.broker.times import Time
from worker.errors import DeclaredTwice
from worker.loops.thread_pool import run_in_thread_pool

P = ParamSpec("P")
R = TypeVar("R")


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

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function; on a broker of somebody else, which has no history, nothing is recorded of it."""
        if is_recorded(self.broker):
            return super().__call__(*args, **kwargs)
        return call_unrecorded(super().__call__, *args, **kwargs)

    def message_with_options(
        self,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - as in Dramatiq
    ) -> dramatiq.Message[R]:
        """A message with options, as in Dramatiq; it is not enqueued.

        Raises:
            TypeError: `args` is no list, `kwargs` no dictionary, or no attempt could end with an option.
        """
        check_kinds(args, kwargs)
        if options:
            options = {name: by_name(value) for name, value in options.items()}
            check_values(options)
        return super().message_with_options(args=tuple(args), kwargs=dict(kwargs) if kwargs else {}, **options)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Sent[R]:
        """Enqueues a message for this actor. In a running event loop, which it blocks, it warns: `SendInLoopWarning`.

        Raises:
            MessageRefused: An argument is not plain JSON, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments.
        """
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
            TypeError: The actor cannot be called with these arguments, or no attempt could end with an option.
        """
        if isinstance(self.broker, StreamBroker):  # which checks every message that it enqueues
            return as_sent(super().send_with_options(args=args, kwargs=kwargs, delay=delay, **options))
        message = self.message_with_options(args=args, kwargs=kwargs, **options)
        ms = round(delay / timedelta(milliseconds=1)) if isinstance(delay, timedelta) else delay
        return enqueue_elsewhere(self.broker, message, ms)

    def send_many(self, messages: Iterable[dramatiq.Message[R]]) -> list[Sent[R]]:
        """Enqueues thousands of messages in a few round trips: `a.send_many(a.message(id) for id in ids)`.

        All are checked and encoded before the first is stored.

        Raises:
            MessageRefused: One is not plain JSON, or too large.
            ServerUnreachable: The server did not answer.
            TypeError: An actor cannot be called with the arguments of one.
        """
        return send_all(self.broker, messages)

    async def asend_many(self, messages: Iterable[dramatiq.Message[R]]) -> list[Sent[R]]:
        """Does what `send_many` does without blocking the running loop."""
        return await run_in_thread_pool(send_all, self.broker, messages)

    def configure(
        self,
        *,
        key: str | None = None,
        ttl: timedelta | str | float | None = None,
        until: Literal["start", "end"] | None = None,
        delay: Time = None,
        at: datetime | None = None,
        priority: int | None = None,
        queue_name: str | None = None,
        message_id: str | None = None,
        time_limit: Time = None,
        max_age: Time = None,
        max_retries: int | None = None,
        min_backoff: Time = None,
        max_backoff: Time = None,
        result_ttl: Time = None,
        **options: object,
    ) -> Configured[P, R]:
        """This actor with options for the messages that are sent through the answer; None: as the actor has it.

        Times are a `timedelta`, a text such as `"10m"`, or infinity; a bare number is refused. Each option can stand
        beside each other one, but `at` and `delay`. Dramatiq's own brokers have no keys, and remember no ids.

        Args:
            key: A key, such as `merge:42`, that all actors share. While a message with it waits or runs, nothing is
                enqueued, and the answer bears the id of that message.
            ttl: The time after which the key is free, also if the message has not ended; counted from when the message
                is due. A number is seconds. None: a day.
            until: The moment at which the message gives its key up: `"start"`, when its first attempt begins, or
                `"end"`, when it has ended for good, which is the default.
            delay: The shortest time for which a message waits.
            at: The time before which a message does not run, with a time zone.
            priority: As in Dramatiq: a lower one is more urgent, 0 is the default.
            queue_name: The queue of the messages.
            message_id: The id of the one message, which is enqueued only if this id was never seen: neither in the
                history, nor sent so in the last `WORKER_SEEN`, counted from when that message was due.
            time_limit: The time that an attempt may take.
            max_age: The time after which a message does not begin any more.
            max_retries: The number of retries.
            min_backoff: The shortest delay before the first retry.
            max_backoff: The longest delay before a retry.
            result_ttl: The time for which a result is kept, with the middleware `Results`.
            **options: Other options of messages that a middleware of the broker knows.

        Raises:
            TypeError: A value is of another type, or a time is a bare number.
            ValueError: A value is not valid, two contradict each other, or no middleware knows an option.
        """
        times = {"time_limit": time_limit, "max_age": max_age, "min_backoff": min_backoff, "max_backoff": max_backoff}
        given = {**times, "max_retries": max_retries, "result_ttl": result_ttl}
        return configured(
            self,
            key=key,
            ttl=ttl,
            until=until,
            delay=delay,
            at=at,
            priority=priority,
            queue_name=queue_name,
            message_id=message_id,
            **{name: value for name, value in given.items() if value is not None},
            **options,
        )

    def send_unique(
        self,
        *,
        key: str,
        ttl: timedelta | str | float | None = None,
        until: Literal["start", "end"] = "end",
        delay: timedelta | str | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] = MappingProxyType({}),
    ) -> Sent[R]:
        """Does what `configure(key=…, ttl=…, until=…, delay=…).send(…)` does, with the arguments as a list.

        Raises:
            ValueError: `until` is neither 'start' nor 'end'.
            MessageRefused: An argument is not plain JSON, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments, or the delay is a bare number.
        """
        message = self.message_with_options(args=args, kwargs=kwargs)
        return send_all(self.broker, [message], read_terms(key=key, ttl=ttl, until=until, delay=delay))[0]

    def send_once(
        self,
        *,
        message_id: str,
        delay: timedelta | str | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] = MappingProxyType({}),
    ) -> Sent[R]:
        """Does what `configure(message_id=…, delay=…).send(…)` does, with the arguments as a list.

        Raises:
            MessageRefused: An argument is not plain JSON, the id is no id, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments, or the delay is a bare number.
        """
        check_id(message_id)
        message = self.message_with_options(args=args, kwargs=kwargs).copy(message_id=message_id)
        return send_all(self.broker, [message], read_terms(delay=delay, once=True))[0]
