"""The function that `@actor` gives to Dramatiq: somebody's own, inside its status context and through the bridge.

It must never look to Dramatiq like an async function, which it would run itself.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from worker.attempts.loop_body import LOOP_BODY, LoopBody
from worker.attempts.results import SETTLES, settled
from worker.attempts.status import ProcessingStatusContext
from worker.attempts.subjects import SubjectReader, check_subject
from worker.broker.arguments import DECLARED
from worker.errors import RunningLoopError
from worker.ground.signatures import signature_of
from worker.loops.bridge import run_async_in_new_loop, run_async_in_shared_loop
from worker.loops.callables import makes_coroutine

P = ParamSpec("P")


def with_status(
    function: Callable[P, Any], subject: tuple[str, ...], loop: str, actor_name: str | None = None
) -> Callable[P, object]:
    """The function of an actor: this one, through the bridge if it is async, inside its status context.

    That of an async function on the shared loop bears its `LoopBody`.

    Args:
        function: The function, async or sync.
        subject: Names of the parameters that are a message's subject.
        loop: The loop of an async function: `shared` or `new`.
        actor_name: The actor's name, or None for that of the function.

    Raises:
        TypeError: `subject` is no tuple.
        ValueError: `subject` names something that cannot be one.
    """
    name = actor_name or str(getattr(function, "__name__", type(function).__name__))
    check_subject(name, subject, function)
    reader = SubjectReader(function, subject)
    bridge = run_async_in_new_loop if loop == "new" else run_async_in_shared_loop
    through_bridge = makes_coroutine(function)

    def run(*args: P.args, **kwargs: P.kwargs) -> object:
        if through_bridge and asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented for event loops
            raise RunningLoopError(
                f"{name} was called in a running event loop, which it would block: "
                f"`await {name}.asend(…)` enqueues it; to run it here, await its service"
            )
        with ProcessingStatusContext(name, "", **reader.read(args, kwargs)):
            returned = bridge(lambda: function(*args, **kwargs)) if through_bridge else function(*args, **kwargs)
            return settled(returned, bridge, name, awaited=through_bridge)
        return None

    # Not functools.wraps: its __wrapped__ would show Dramatiq an async function, which it would run itself.
    functools.update_wrapper(run, function, assigned=("__module__", "__qualname__", "__doc__"))
    del run.__wrapped__  # type: ignore[attr-defined]
    run.__name__ = name
    run.__signature__ = signature_of(function)  # type: ignore[attr-defined]
    setattr(run, DECLARED, function)
    setattr(run, SETTLES, True)
    if through_bridge and loop == "shared":
        setattr(run, LOOP_BODY, LoopBody(function, run, name, reader.read))
    return run
