"""Reads the arguments for an actor that a person types on the command line."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import dramatiq

from worker.errors import ConfigurationError
from worker.operations.actors import first_that_fits, fits


def read_arguments(actor: dramatiq.Actor[..., Any], words: Sequence[str]) -> list[Any]:
    """The arguments for an actor: JSON values, or strings if the actor takes strings.

    Raises:
        ConfigurationError: There are too many or too few arguments, or they do not fit the annotations.
    """
    return first_that_fits(actor, lambda signature: _read_all(actor.actor_name, signature, words))


def _read_all(actor_name: str, signature: inspect.Signature, words: Sequence[str]) -> list[Any]:
    usage = f"{actor_name}{signature}"
    try:
        bound = signature.bind(*words)
    except TypeError as error:
        raise ConfigurationError(f"{usage}: {error}") from None
    values: list[Any] = []
    for name, given in bound.arguments.items():
        parameter = signature.parameters[name]
        several = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        values.extend(_read(word, parameter, usage) for word in (given if several else [given]))
    return values


def _read(word: str, parameter: inspect.Parameter, usage: str) -> object:
    candidates: list[object] = [word]
    with contextlib.suppress(ValueError):
        candidates.insert(1 if parameter.annotation is str else 0, json.loads(word))
    for candidate in candidates:
        if fits(candidate, parameter.annotation):
            return candidate
    expected = inspect.formatannotation(parameter.annotation)
    raise ConfigurationError(f"{usage}: {parameter.name}={word}: expected {expected}")
