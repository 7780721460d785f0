"""Another kind of event loops for the whole program."""

from __future__ import annotations

import asyncio

import uvloop


def use_loops_of(kind: str) -> None:
    """Has the program make loops of uvloop from now on, or else asyncio's own.

    Puts the policy where asyncio keeps it: the function that sets one is deprecated.
    """
    policy = uvloop.EventLoopPolicy() if kind == "uvloop" else None
    asyncio.events._event_loop_policy = policy  # type: ignore[attr-defined]
