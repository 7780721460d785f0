"""Another kind of event loops for the whole program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvloop

from worker.loops import fresh_loop


def use_loops_of(kind: str) -> None:
    """Makes loops of uvloop from now on, or else asyncio's own, also where uvloop is installed.

    Puts the policy where asyncio keeps it: the function that sets one is deprecated.
    """
    policy = uvloop.EventLoopPolicy() if kind == "uvloop" else None
    asyncio.events._event_loop_policy = policy  # type: ignore[attr-defined]
    fresh_loop._uvloop = _no_loop if kind == "asyncio" else _loop_of_uvloop


_loop_of_uvloop = fresh_loop._uvloop


@contextlib.contextmanager
def loops_of_the_settings() -> Iterator[None]:
    """Makes loops as `WORKER_LOOP` says, whatever was said before, until the block ends."""
    before, fresh_loop._uvloop = fresh_loop._uvloop, _loop_of_uvloop
    try:
        yield
    finally:
        fresh_loop._uvloop = before


def _no_loop() -> None:
    """As where uvloop is not installed."""
