"""Checks a message where it is sent: its arguments against its actor's signature, and its options.

It never refuses arguments that the call itself would take: the outermost decorator of the actor's function decides.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import dramatiq
from dramatiq.asyncio import async_to_sync
from dramatiq.broker import Broker

from worker.attempts.option_values import check_priority, check_values
from worker.broker.envelope import PRIORITY
from worker.ground.texts import shown

R = TypeVar("R")

DECLARED = "declared"
"""The attribute under which our wrapper keeps the function that the program has declared as an actor."""


class _Form(NamedTuple):
    """The arguments that a function takes.

    Attributes:
        function: The actor's function, which a middleware may replace.
        signature: Its signature, or None if it has none that Python knows.
        fewest: The fewest arguments that it takes if all are positional.
        most: The most of them.
    """

    function: Callable[..., Any]
    signature: inspect.Signature | None
    fewest: float
    most: float


_FORM = "_form"
"""The attribute under which an actor bears its form: a look-up in a dictionary of actors takes thrice as long."""


def check_arguments(actor: dramatiq.Actor[..., Any], args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Checks that the actor's function can be called with these arguments.

    Raises:
        TypeError: It cannot; the text names the actor, its parameters, and the argument.
    """
    form: _Form | None = vars(actor).get(_FORM)
    if form is None or form.function is not actor.fn:
        form = vars(actor)[_FORM] = _form_of(actor.fn)
    # Most messages: a comparison costs a twentieth of what binding does.
    if form.signature is None or (not kwargs and form.fewest <= len(args) <= form.most):
        return
    try:
        form.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{actor.actor_name}{form.signature}: {error}") from None


def check_kinds(args: object, kwargs: object) -> None:
    """Checks what a program gives as the arguments of a message: a text would be as many of them as it has letters.

    Raises:
        TypeError: They are no list, or the named ones no dictionary.
    """
    # Most are of the plain types: asking for these takes a tenth of the time.
    if type(args) is not tuple and (not isinstance(args, Sequence) or isinstance(args, str | bytes)):
        raise TypeError(f"args={shown(repr(args))}: write a tuple of arguments, such as (42,)")
    if kwargs is not None and type(kwargs) is not dict and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs={shown(repr(kwargs))}: write a dictionary of arguments, such as {{'number': 42}}")


def check_message(broker: Broker, message: dramatiq.Message[Any]) -> None:
    """Checks a message's options, and its arguments, if its actor is one of this program's.

    Raises:
        TypeError: It is no message, the actor cannot be called with the arguments, or no attempt could end with an
            option.
    """
    if not isinstance(message, dramatiq.Message):
        raise no_message(message)
    if message.options:
        check_values(message.options)
        if PRIORITY in message.options:
            check_priority(message.options[PRIORITY])
    actor = broker.actors.get(message.actor_name)
    if actor is not None:
        check_arguments(actor, message.args, message.kwargs)


def each_of(messages: Iterable[dramatiq.Message[R]]) -> Iterable[dramatiq.Message[R]]:
    """The messages themselves.

    Raises:
        TypeError: They are nothing that can be gone through.
    """
    if not isinstance(messages, Iterable):
        raise TypeError(f"{shown(repr(messages))}: write a list of messages, such as [actor.message(id) for id in ids]")
    return messages


def no_message(value: object) -> TypeError:
    """The error of a value that is sent where a message belongs."""
    return TypeError(f"{shown(repr(value))} is no message: make one with `actor.message(…)`")


def _form_of(function: Callable[..., Any]) -> _Form:
    signature = own_signature(function)
    if signature is None:
        return _Form(function, None, 0, 0)
    parameters = signature.parameters.values()
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    needs_a_name = any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters)
    return _Form(
        function,
        signature,
        fewest=float("inf") if needs_a_name else sum(one.default is one.empty for one in positional),
        most=float("inf") if takes_any else len(positional),
    )


def own_signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature with which an actor's function is called, or None if it has none that Python knows.

    A decorated function is called with the signature of its outermost decorator.
    """
    try:
        return inspect.signature(_declared(function), follow_wrapped=False)
    except (ValueError, TypeError):
        return None


def _declared(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that the program has declared, without our wrapper and Dramatiq's, which pass on all arguments."""
    while getattr(function, "is_body", False) or _is_dramatiqs(function):
        function = getattr(function, DECLARED, None) or vars(function)["__wrapped__"]
    return function


def _is_dramatiqs(function: Callable[..., Any]) -> bool:
    """Whether Dramatiq has made this function from an async one."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == async_to_sync.__code__.co_filename
