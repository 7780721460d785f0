"""`@actor`: a function, async or sync, becomes a Dramatiq actor with bridge and status built in.

It is the shorthand for a plain Dramatiq actor with a `ProcessingStatusContext` around a call through the bridge. Both
forms work side by side.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

import dramatiq
from dramatiq.brokers.stub import StubBroker

from worker.attempts.option_values import check_priority
from worker.attempts.subjects import SUBJECT
from worker.broker import ensure_broker, for_actors
from worker.broker.actor import Actor
from worker.broker.actor_body import with_status
from worker.broker.configured import check_queue_name, nearest
from worker.broker.runners import CONCURRENCY
from worker.broker.streams import StreamBroker
from worker.broker.times import Time, in_milliseconds
from worker.ground.texts import shown
from worker.loops.callables import makes_coroutine

P = ParamSpec("P")
R = TypeVar("R")

_OWN = ("queue_name", "priority", "actor_name", "broker", "actor_class", "aliases", "loop", CONCURRENCY)

_OF_MESSAGES = {"key", "ttl", "until", "delay", "at", "message_id"}


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
    queue_name: str = "default",
    priority: int = 0,
    actor_name: str | None = None,
    broker: dramatiq.Broker | None = None,
    actor_class: type[Actor[..., object]] = Actor,
    subject: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
    at_most_once: bool = False,
    loop: Literal["shared", "new"] = "shared",
    concurrency: int | None = None,
    time_limit: Time = ...,
    max_age: Time = ...,
    max_retries: int | None = ...,
    min_backoff: Time = ...,
    max_backoff: Time = ...,
    retry_when: Callable[[int, BaseException], bool] | None = ...,
    throws: type[BaseException] | tuple[type[BaseException], ...] = ...,
    on_retry_exhausted: str | None = ...,
    on_failure: str | None = ...,
    on_success: str | None = ...,
    notify_shutdown: bool = ...,
    pipe_ignore: bool = ...,
    store_results: bool = ...,
    result_ttl: Time = ...,
    **options: object,
) -> ActorDecorator: ...


def actor(
    function: Callable[..., Any] | None = None,
    /,
    *,
    queue_name: str = "default",
    priority: int = 0,
    actor_name: str | None = None,
    broker: dramatiq.Broker | None = None,
    actor_class: type[Actor[..., object]] = Actor,
    subject: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
    at_most_once: bool = False,
    loop: Literal["shared", "new"] = "shared",
    concurrency: int | None = None,
    **options: object,
) -> Actor[..., Any] | ActorDecorator:
    """Makes a Dramatiq actor of a function, async or sync; `@actor` or `@actor(…)`.

    Each attempt runs inside a `ProcessingStatusContext` that bears the actor's name. The first use in a program
    that has set no broker binds ours, from the settings; it connects when something is sent or a worker starts.

    It takes every option that `dramatiq.actor` takes, and those of any middleware of the broker. `time_limit`,
    `max_age`, `min_backoff`, `max_backoff` and `result_ttl` are a `timedelta`, a text such as `"10m"`, infinity, or
    None for as it is without the option; a bare number, which is milliseconds in Dramatiq, is refused.

    Args:
        function: The function; its arguments must be plain JSON values.
        queue_name: The queue of its messages.
        priority: As in Dramatiq: messages of a lower one run first.
        actor_name: The actor's name, or None for that of the function.
        broker: The broker, or None for the program's.
        actor_class: A subclass of our class of actors.
        subject: Names of the parameters that are a message's subject; the events carry their values.
        aliases: Old names of the actor: messages that were sent under them run, and are told under its name of today.
        at_most_once: Whether an attempt begins only after the server has stored its begin, and is the message's last:
            after an error, an interruption or the loss of its worker, the message is a dead letter.
        loop: The loop of an async function: `"shared"`, the process's one long-lived loop, on which clients at module
            level work, or `"new"`, a new loop for each message.
        concurrency: The most attempts of this actor that a process runs at once on its shared loop, apart from those of
            other actors; or None for a place among the `WORKER_CONCURRENCY` that all others share.
        **options: The options of the broker's middleware, such as `max_retries`; as in Dramatiq, None is without limit.

    Raises:
        TypeError: A time is a bare number, `subject` or `aliases` is no tuple, or another value is of a wrong type.
        ValueError: `subject` names something that is not a parameter, `queue_name` is not a valid name, `loop` is
            neither 'shared' nor 'new', `concurrency` is less than 1, or not for an async function on the shared loop,
            no middleware of the broker knows an option, another actor has the name or an alias, or `at_most_once`
            cannot be promised: with retries, or with another broker.
    """
    if loop not in ("shared", "new"):
        raise ValueError(f"loop={loop!r}: write 'shared' or 'new'")
    if not (isinstance(actor_class, type) and issubclass(actor_class, Actor)):
        raise TypeError(f"actor_class={actor_class!r}: write a subclass of worker.broker.actor.Actor")
    if not isinstance(broker, dramatiq.Broker | None):
        raise TypeError(f"broker={broker!r}: write a dramatiq.Broker, or None for the program's")
    if actor_name is not None and not _is_name(actor_name):
        raise TypeError(
            f"actor_name={actor_name!r}: write a text, such as 'make_report', or None for the function's name"
        )
    if function is not None and not callable(function):
        raise TypeError(
            f"@actor: {shown(repr(function))} is no function: write @actor, or @actor(…) with options by name"
        )
    check_queue_name(queue_name)
    check_priority(priority)
    given = in_milliseconds(options)

    def decorate(function: Callable[..., Any]) -> Actor[..., Any]:
        bound = for_actors(ensure_broker() if broker is None else broker)
        _check_known(bound, options)
        own: dict[str, object] = {}
        if subject and SUBJECT in bound.actor_options:
            own[SUBJECT] = subject
        if at_most_once:
            _check_at_most_once(bound)
            own["at_most_once"] = True
        if concurrency is not None:
            _check_concurrency(concurrency, loop, function)
            own[CONCURRENCY] = concurrency
        body = with_status(function, subject, loop, actor_name)
        declare = dramatiq.actor(
            queue_name=queue_name,
            priority=priority,
            actor_name=actor_name,
            broker=bound,
            actor_class=actor_class,
            **given,
            **own,
        )
        _check_aliases(bound, body.__name__, aliases)
        declared = cast("Actor[..., Any]", declare(body))
        bound.actors.update(dict.fromkeys(aliases, declared))
        return declared

    return cast("ActorDecorator", decorate) if function is None else decorate(function)


def _check_known(broker: dramatiq.Broker, options: Iterable[str]) -> None:
    for name in options:
        if name in broker.actor_options:
            continue
        if name in _OF_MESSAGES:
            raise ValueError(f"@actor: {name} is an option of messages: write actor.configure({name}=…).send(…)")
        hint = nearest(name, [*_OWN, *broker.actor_options]) or "add the middleware that reads it to the broker"
        raise ValueError(f"@actor: no middleware of the broker knows the option {name!r}: {hint}")


def _check_at_most_once(broker: dramatiq.Broker) -> None:
    if not isinstance(broker, StreamBroker | StubBroker):
        raise ValueError(  # noqa: TRY004 - what is asked for is wrong
            f"at_most_once=True: {type(broker).__name__} may deliver a message again; set WORKER_BROKER=streams"
        )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _check_aliases(broker: dramatiq.Broker, name: str, aliases: tuple[str, ...]) -> None:
    if not (isinstance(aliases, tuple) and all(map(_is_name, aliases))):
        raise TypeError(f"aliases={aliases!r} of {name}: write a tuple, such as ('old_name',)")
    for alias in aliases:
        if alias == name:
            raise ValueError(f"aliases of {name}: {alias!r} is its own name: leave it out")
        if (known := broker.actors.get(alias)) is not None:
            raise ValueError(
                f"aliases of {name}: {alias!r} is a name of the actor {known.actor_name} in {known.fn.__module__}: "
                "leave it out, or rename that actor"
            )


def _check_concurrency(concurrency: int, loop: str, function: Callable[..., Any]) -> None:
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ValueError(f"concurrency={concurrency!r}: write a number from 1")
    if loop != "shared" or not makes_coroutine(function):
        raise ValueError(
            f"concurrency={concurrency} is for async actors on the shared loop; "
            "the threads of a worker are those of `dramatiq --threads`"
        )
