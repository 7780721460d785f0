"""The two runners of attempts, and the names of the actors that a scene has for each."""

from __future__ import annotations

from worker.server.keys import LOOP, THREAD

RUNNERS = (LOOP, THREAD)


def named(actor: str, runner: str) -> str:
    """The name of the actor of the worker processes that runs there."""
    return actor if runner == LOOP else f"{actor}_on_thread"
