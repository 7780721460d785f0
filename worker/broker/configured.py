"""`Configured`: an actor with options for the messages that are sent through it. It changes nothing of the actor."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, ParamSpec, TypeVar

import dramatiq

from worker.attempts.option_values import check_priority, check_values
from worker.broker.arguments import each_of, no_message
from worker.broker.enqueueing import send_all
from worker.broker.envelope import PRIORITY
from worker.broker.sent import Sent
from worker.broker.terms import Terms, read_terms
from worker.broker.times import Time, in_milliseconds
from worker.ground.texts import shown
from worker.loops.thread_pool import run_in_thread_pool

P = ParamSpec("P")
R = TypeVar("R")

_QUEUE = re.compile(r"[a-zA-Z_][a-zA-Z0-9._-]*")

_OWN = ("key", "ttl", "until", "delay", "at", "priority", "queue_name", "message_id")

_OF_ACTORS = {
    *("actor_class", "actor_name", "aliases", "at_most_once", "broker", "concurrency", "loop"),
    *("retry_when", "subject", "throws"),
}
"""Options of the actor alone."""


@dataclass(frozen=True, slots=True)
class Configured(Generic[P, R]):
    """An actor whose messages are sent with options, as `configure` has made it; it can be kept and used again.

    Attributes:
        actor: The actor.
        terms: The terms on which its messages are enqueued.
        fields: The fields that take the place of a message's own.
        options: The options of each message.
    """

    actor: dramatiq.Actor[P, R]
    terms: Terms
    fields: Mapping[str, str]
    options: Mapping[str, Any]

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Sent[R]:
        """Enqueues a message. In a running event loop, which it blocks, it warns: `SendInLoopWarning`.

        Raises:
            MessageRefused: An argument is not plain JSON, or the message is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with these arguments.
        """
        return self._send(args, kwargs)

    async def asend(self, *args: P.args, **kwargs: P.kwargs) -> Sent[R]:
        """Does what `send` does without blocking the running loop."""
        return await run_in_thread_pool(self._send, args, kwargs)

    def send_many(self, messages: Iterable[dramatiq.Message[R]]) -> list[Sent[R]]:
        """Enqueues thousands of messages in a few round trips: `c.send_many(actor.message(id) for id in ids)`.

        All are checked and encoded before the first is stored. With a key, only the first of them is enqueued.

        Raises:
            MessageRefused: One is not plain JSON, or too large.
            ServerUnreachable: The server did not answer.
            TypeError: An actor cannot be called with the arguments of one.
            ValueError: `message_id` was given, which is the id of one message.
        """
        if self.terms.once:
            raise ValueError("message_id= is the id of one message: give each its own, with configure(…).send(…)")
        return send_all(self.actor.broker, map(self._with_options, each_of(messages)), self.terms)

    async def asend_many(self, messages: Iterable[dramatiq.Message[R]]) -> list[Sent[R]]:
        """Does what `send_many` does without blocking the running loop."""
        return await run_in_thread_pool(self.send_many, messages)

    def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sent[R]:
        message = self.actor.message_with_options(args=args, kwargs=kwargs, **self.options)
        if self.fields:
            message = message.copy(**self.fields)
        return send_all(self.actor.broker, [message], self.terms)[0]

    def _with_options(self, message: dramatiq.Message[R]) -> dramatiq.Message[R]:
        # Made by the actor, which turns other actors among the options into their names.
        own = self.actor.message_with_options(**self.options)
        if not isinstance(message, dramatiq.Message):
            raise no_message(message)
        return message.copy(options=own.options, **self.fields)


def configured(
    actor: dramatiq.Actor[P, R],
    *,
    key: str | None = None,
    ttl: Time = None,
    until: Literal["start", "end"] | None = None,
    delay: Time = None,
    at: datetime | None = None,
    priority: int | None = None,
    queue_name: str | None = None,
    message_id: str | None = None,
    **options: object,
) -> Configured[P, R]:
    """Does what `Actor.configure` does, for any actor.

    Raises:
        TypeError: A value is of another type, or a time is a bare number.
        ValueError: A value is not valid, two contradict each other, or no middleware knows an option.
    """
    terms = read_terms(key=key, ttl=ttl, until=until, delay=delay, at=at, once=message_id is not None)
    given = {name: by_name(value) for name, value in in_milliseconds(options).items() if value is not None}
    _check_known(actor.broker, options)
    _check_callbacks(actor.broker, given)
    check_values(given)
    if priority is not None:
        check_priority(priority)
        given[PRIORITY] = priority
    if queue_name is not None:
        check_queue_name(queue_name)
    if message_id is not None:
        check_id(message_id)
    named = {"queue_name": queue_name, "message_id": message_id}
    return Configured(actor, terms, {name: value for name, value in named.items() if value is not None}, given)


def _check_known(broker: dramatiq.Broker, options: Mapping[str, object]) -> None:
    """Refuses an option that nobody would read: a misspelled one would change nothing, silently."""
    for name in options:
        if name in _OF_ACTORS:
            raise ValueError(f"configure(): {name} is an option of actors: give it to @actor")
        if name in broker.actor_options:
            continue
        hint = (
            nearest(name, [*_OWN, *broker.actor_options])
            or "add the middleware that reads it, or use send_with_options"
        )
        raise ValueError(f"configure(): no middleware of the broker knows the option {name!r}: {hint}")


def check_id(message_id: object) -> None:
    """Checks an id that a program gives to a message.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty.
    """
    if not isinstance(message_id, str):
        raise TypeError(f"message_id={shown(repr(message_id))}: write a text, such as 'order-7'")
    if not message_id:
        raise ValueError("message_id is empty: leave it out, or write an id")


def by_name(value: object) -> object:
    """The value; of an actor, which stands for itself in Dramatiq's callbacks, its name."""
    return value.actor_name if isinstance(value, dramatiq.Actor) else value


def _check_callbacks(broker: dramatiq.Broker, options: Mapping[str, object]) -> None:
    """Refuses the name of an actor that nobody has: it would come out only after the message's end."""
    for option in ("on_success", "on_failure", "on_retry_exhausted"):
        name = options.get(option)
        if isinstance(name, str) and name not in broker.actors:
            hint = nearest(name, broker.actors) or "import the module that declares it, or use send_with_options"
            raise ValueError(f"{option}={shown(name)!r}: this program has no actor of that name: {hint}")


def check_queue_name(name: object) -> None:
    """Checks the name of a queue.

    Raises:
        TypeError: It is no text.
        ValueError: It has other characters than a queue's name may have.
    """
    if not isinstance(name, str):
        raise TypeError(f"queue_name={shown(repr(name))}: write a text, such as 'network'")
    if not _QUEUE.fullmatch(name):
        raise ValueError(
            f"queue_name={shown(name)!r}: begin with a letter or an underscore, "
            "and go on with letters, digits, dots, dashes and underscores"
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a misspelled option, or empty if none is like it."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else ""
