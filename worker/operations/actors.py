"""Finds the program's actors by name, and checks arguments for them, for the command line and the web."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import dramatiq
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from worker.broker import ensure_broker
from worker.broker.arguments import own_signature
from worker.broker.configured import configured
from worker.broker.sent import Sent
from worker.errors import ConfigurationError, MissingExtra, WorkerError
from worker.ground.signatures import signature_of
from worker.settings import Settings

T = TypeVar("T")

HIDES = "hides the package `worker`, which has the same name, from Python"
RENAME = "rename it"

_PACKAGE = Path(__file__).parents[1] / "__init__.py"
_DRAMATIQ = Path(dramatiq.__file__).parent
_UNSET = "WORKER_ACTORS is not set: name the modules of your actors, such as WORKER_ACTORS=checks in .env"


def load_actors(settings: Settings) -> dict[str, dramatiq.Actor[..., Any]]:
    """Imports the modules of `WORKER_ACTORS`, and returns every actor by name.

    Raises:
        ConfigurationError: A module does not exist, cannot be imported, or needs an extra that is not installed; or a
            module of this folder has the name of this package, so that workers that start here find it instead.
    """
    if (hides := namesake(Path.cwd())) is not None:
        raise ConfigurationError(f"{hides} {HIDES}: {RENAME}")
    # Like the dramatiq command: a program's modules may be in the folder in which it is started.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for module in settings.actors:
        try:
            importlib.import_module(module)
        except MissingExtra as error:
            if not _are_named(settings):
                raise ConfigurationError(
                    f"{_UNSET} (the built-in actors: pip install 'dramatiq-bridge[{error.extra}]')"
                ) from error
            raise MissingExtra(error.extra, f"WORKER_ACTORS={','.join(settings.actors)}") from error
        except WorkerError:
            raise
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
                raise ConfigurationError(
                    f"WORKER_ACTORS={','.join(settings.actors)}: there is no module {error.name!r} here: "
                    "install it, or start in the folder that holds it"
                ) from error
            raise ConfigurationError(
                f"WORKER_ACTORS={','.join(settings.actors)}: {module} cannot be imported: "
                f"{type(error).__name__}: {error}, at {_place_of(error)}"
            ) from error
    return dict(ensure_broker().actors)


def find_actor(settings: Settings, name: str) -> dramatiq.Actor[..., Any]:
    """The actor of this name.

    Raises:
        ConfigurationError: There is no such actor; the message lists the known ones.
    """
    actors = load_actors(settings)
    if name not in actors:
        known = ", ".join(sorted({one.actor_name for one in actors.values()})) or "none"
        if not _are_named(settings):
            raise ConfigurationError(f"no actor {name!r} among the built-in ones ({known}): {_UNSET}")
        raise ConfigurationError(f"no actor {name!r} in WORKER_ACTORS={','.join(settings.actors)}; there are: {known}")
    return actors[name]


def namesake(folder: Path) -> Path | None:
    """A file in this folder that Python imports in the place of this package, or None.

    Workers find the modules of the folder in which they start before all others.
    """
    for found in (folder / "worker.py", folder / "worker" / "__init__.py"):
        if found.is_file() and not found.samefile(_PACKAGE):
            return found
    return None


def _place_of(error: Exception) -> str:
    """The file and the line at which the import of a module failed, before it led into this package or Dramatiq."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<frozen ")]
    outside = [one for one in frames if not {_PACKAGE.parent, _DRAMATIQ} & set(Path(one.filename).parents)]
    last = (outside or frames)[-1]
    return f"{last.filename}:{last.lineno}"


def _are_named(settings: Settings) -> bool:
    """Whether somebody has said which modules have the actors."""
    return "actors" in settings.model_fields_set


def first_that_fits(actor: dramatiq.Actor[..., Any], fit: Callable[[inspect.Signature], T]) -> T:
    """The answer of `fit` to the first of an actor's signatures that it does not refuse.

    The first is that of the function, with annotations; the next, if there is one, that of a decorator around it, which
    may take other arguments.

    Raises:
        ConfigurationError: It refuses all; the text is the one for the first.
    """
    first, *others = _signatures_of(actor.fn)
    try:
        return fit(first)
    except ConfigurationError:
        for other in others:
            with contextlib.suppress(ConfigurationError):
                return fit(other)
        raise


def _signatures_of(function: Callable[..., Any]) -> list[inspect.Signature]:
    inner = signature_of(function)
    own = own_signature(function)
    return [inner] if own is None or list(own.parameters) == list(inner.parameters) else [inner, own]


PRIORITIES: Mapping[str, int] = {"high": -1, "normal": 0, "low": 1}
"""The names of priorities, and what they are in Dramatiq."""


def enqueue(
    actor: dramatiq.Actor[..., Any],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Sent[Any]:
    """Enqueues a message for an actor, if the actor takes these arguments.

    Args:
        actor: The actor.
        args: Its positional arguments.
        kwargs: Its named arguments.
        options: The options of `Actor.configure`, but `priority` is `high`, `normal` or `low`; None: not given.

    Raises:
        ConfigurationError: There are too many or too few arguments, they do not fit the actor's annotations, or an
            option has no valid value.
        MessageRefused: An argument is not plain JSON, or the message is too large.
        ServerUnreachable: The server did not answer.
    """
    check_arguments(actor, args, kwargs)
    given = {name: value for name, value in options.items() if value is not None}
    if "priority" in given:
        given["priority"] = PRIORITIES[given["priority"]]
    try:
        sender = configured(actor, **given)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    return sender.send(*args, **kwargs)


def check_arguments(actor: dramatiq.Actor[..., Any], args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Checks arguments against the actor's signature.

    Raises:
        ConfigurationError: There are too many or too few arguments, or they do not fit the annotations.
    """
    first_that_fits(actor, lambda signature: _check(actor.actor_name, signature, args, kwargs))


def _check(actor_name: str, signature: inspect.Signature, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    usage = f"{actor_name}{signature}"
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ConfigurationError(f"{usage}: {error}") from None
    for name, given in bound.arguments.items():
        parameter = signature.parameters[name]
        values = [given]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            values = list(given)
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            values = list(given.values())
        if not all(fits(value, parameter.annotation) for value in values):
            raise ConfigurationError(f"{usage}: {name}: expected {inspect.formatannotation(parameter.annotation)}")


def fits(value: object, annotation: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether a value fits an annotation; True for annotations that pydantic does not know."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return True
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError:
        return False
    except (PydanticSchemaGenerationError, PydanticUserError):
        return True
    return True
