"""The async function of an actor, as the body of attempts on the shared loop.

It must never make what only few attempts need.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dramatiq

from worker.attempts.results import settled_on_loop
from worker.attempts.run import AttemptRun
from worker.errors import NoContentFound
from worker.ground.groups import deciding, release
from worker.history.events import Subject

LOOP_BODY = "loop_body"
"""The attribute of an actor's function with the `LoopBody` that does the same on the shared loop."""


@dataclass(frozen=True, slots=True)
class LoopBody:
    """An async function that runs inside a status context of the attempt's own.

    Attributes:
        function: The function.
        stands_for: The sync function that does the same on a thread, and bears this.
        name: The name of its context, and of its events.
        subject_of: Returns the subject of a message with these arguments.
    """

    function: Callable[..., Awaitable[object]]
    stands_for: Callable[..., object]
    name: str
    subject_of: Callable[[tuple[Any, ...], Mapping[str, Any]], Subject]

    async def run(self, run: AttemptRun, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """Runs the function; `NoContentFound` is swallowed, as by the status context.

        Raises:
            BaseException: The function's error.
        """
        try:
            returned = await self.function(*args, **kwargs)
            return None if returned is None else await settled_on_loop(returned, self.name)
        except BaseException as error:
            run.own_span().see(error)
            if isinstance(deciding(error), NoContentFound):
                release(error)
                return None
            raise


def loop_body(actor: dramatiq.Actor[..., object]) -> LoopBody | None:
    """The body that runs the actor on the shared loop; None if it has none, or if somebody has wrapped its function."""
    function = actor.fn
    found: LoopBody | None = getattr(function, LOOP_BODY, None)
    # What wraps a function bears its attributes, but is not that function.
    if found is None or getattr(function, "body", None) is not function:
        return None
    return found if getattr(function, "__wrapped__", None) is found.stands_for else None
