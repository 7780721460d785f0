"""The program's actors, and arguments for them as they are typed on the command line."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dramatiq
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from worker.broker import ensure_broker
from worker.errors import ConfigurationError, MissingExtra
from worker.settings import Settings


def load_actors(settings: Settings) -> dict[str, dramatiq.Actor[..., Any]]:
    """Imports the modules of `WORKER_ACTORS`, and returns every actor by name.

    Raises:
        ConfigurationError: A module is not there, or needs an extra that is not installed.
    """
    # As the dramatiq command does: the folder in which a program is started holds its modules.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for module in settings.actors:
        try:
            importlib.import_module(module)
        except MissingExtra as error:
            raise MissingExtra(error.extra, f"WORKER_ACTORS={','.join(settings.actors)}") from error
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise ConfigurationError(
                f"WORKER_ACTORS={','.join(settings.actors)}: there is no module {error.name!r} here: "
                "install it, or start in the folder that holds it"
            ) from error
    return dict(ensure_broker().actors)


def find_actor(settings: Settings, name: str) -> dramatiq.Actor[..., Any]:
    """The actor of that name.

    Raises:
        ConfigurationError: There is none; the message lists the known ones.
    """
    actors = load_actors(settings)
    if name not in actors:
        known = ", ".join(sorted(actors)) or "none"
        raise ConfigurationError(f"no actor {name!r} in WORKER_ACTORS={','.join(settings.actors)}; there are: {known}")
    return actors[name]


def read_arguments(actor: dramatiq.Actor[..., Any], words: Sequence[str]) -> list[Any]:
    """The arguments for an actor: JSON values, or strings where that is what the actor takes.

    Raises:
        ConfigurationError: They are too many, too few, or not what its annotations say.
    """
    signature = inspect.signature(actor.fn, eval_str=True)
    usage = f"{actor.actor_name}{signature}"
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
        if _fits(candidate, parameter.annotation):
            return candidate
    expected = inspect.formatannotation(parameter.annotation)
    raise ConfigurationError(f"{usage}: {parameter.name}={word}: expected {expected}")


def _fits(value: object, annotation: Any) -> bool:  # noqa: ANN401 - any annotation
    if annotation is inspect.Parameter.empty:
        return True
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError:
        return False
    except PydanticSchemaGenerationError:
        return True
    return True
