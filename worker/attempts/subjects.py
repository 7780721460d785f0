"""The subject of a message, from the arguments of its actor's function: the sender knows it, and so does the attempt.

It never fails a message: where arguments do not fit, the subject has what their names tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dramatiq

from worker.ground.signatures import signature_of
from worker.history.events import Subject
from worker.history.lines import subject_names

SUBJECT = "subject"
"""The option of an actor with the names of the parameters that are the subject of its messages."""

BETWEEN = "\x1e"
"""Stands between the parts of a subject that is sent. No part has it."""

_TAKEN = {"event_prefix", "message", "self"}

_READER = "_subject"
"""The attribute under which an actor bears the reader of its subjects."""


class SubjectReader:
    """Reads the subject of messages with these arguments.

    Args:
        function: The actor's function.
        names: The names of the parameters that are the subject.
    """

    def __init__(self, function: Callable[..., Any], names: Sequence[str]) -> None:
        self.function = function
        self._signature = signature_of(function)
        parameters = list(self._signature.parameters.values())
        positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        self._names = names
        self._places = {one.name: place for place, one in enumerate(parameters) if one in positional}
        self._is_plain = len(positional) == len(parameters) and all(one.default is one.empty for one in parameters)

    def read(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str | int | float | None]:
        """The subject of a message with these arguments."""
        if not self._names:
            return {}
        if self._is_plain and not kwargs and len(args) == len(self._places):  # what binds, in a tenth of the time
            values: list[tuple[str, Any]] = [(name, args[self._places[name]]) for name in self._names]
        else:
            known = self._bound(args, kwargs)
            values = [(name, known[name]) for name in self._names if name in known]
        return {name: value if isinstance(value, str | int | float | None) else str(value) for name, value in values}

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        # Where it fails, a decorator takes other arguments, or the call itself raises the error, which the history has.
        with contextlib.suppress(TypeError):
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return bound.arguments
        return kwargs


def sent_subjects(actor: dramatiq.Actor[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The parts of the subject of a message for this actor, as it is sent; empty if the actor declares none."""
    names = actor.options.get(SUBJECT) if actor is not None else None
    if actor is None or not names:
        return ""
    reader: SubjectReader | None = vars(actor).get(_READER)
    if reader is None or reader.function is not actor.fn:
        reader = vars(actor)[_READER] = SubjectReader(actor.fn, names)
    subject: Subject = reader.read(args, kwargs)
    return BETWEEN.join(subject_names(subject))


def check_subject(name: str, subject: tuple[str, ...], function: Callable[..., Any]) -> None:
    """Checks what an actor declares as its subject.

    Raises:
        TypeError: It is no tuple.
        ValueError: It names something that cannot be a subject.
    """
    if not isinstance(subject, tuple):
        raise TypeError(f"subject={subject!r} of {name}: write a tuple, such as ('conversation_id',)")
    signature = signature_of(function)
    for parameter in subject:
        if parameter not in signature.parameters:
            raise ValueError(f"subject of {name}: {parameter!r} is not one of its parameters {signature}")
        if parameter in _TAKEN:
            raise ValueError(f"subject of {name}: a parameter of a subject cannot be called {parameter!r}: rename it")
