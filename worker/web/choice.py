"""The actors that the form for enqueueing offers: those that it can enqueue for, whether or not they have run."""

from __future__ import annotations

from dataclasses import dataclass

from worker.errors import ConfigurationError
from worker.ground.logs import get_logger
from worker.operations.actors import load_actors
from worker.settings import Settings

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ActorChoice:
    """The names of the actors, and a complaint if the modules of `WORKER_ACTORS` cannot be imported."""

    names: tuple[str, ...] = ()
    complaint: str = ""


def actors_to_choose(settings: Settings) -> ActorChoice:
    """Imports the modules of `WORKER_ACTORS`; an error of theirs becomes the complaint."""
    try:
        return ActorChoice(tuple(sorted(load_actors(settings))))
    except ConfigurationError as error:
        return ActorChoice(complaint=str(error))
    except Exception as error:
        logger.warning("the modules of WORKER_ACTORS cannot be imported", exc_info=True)
        return ActorChoice(complaint=f"WORKER_ACTORS cannot be imported: {type(error).__name__}: {error}")
