"""Tells a program, once for each place in its code, that a send blocks the event loop in which it is called."""

from __future__ import annotations

import asyncio
import sys
import warnings
from types import FrameType

# What stands between a program's own line and the server.
_BETWEEN = ("worker.broker.", "worker.operations.", "dramatiq.")


class SendInLoopWarning(RuntimeWarning):
    """A send blocks the running event loop for a round trip: `await actor.asend(…)`, or `configure(…).asend(…)`."""


def tell_if_in_loop() -> None:
    """Warns of the line of the program from which a running loop is blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    frame = _caller()
    warnings.warn_explicit(
        "a send blocks the running event loop until the server has answered: write `await actor.asend(…)`, "
        "with options `await actor.configure(…).asend(…)`, or for many `await actor.asend_many(…)`",
        SendInLoopWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _caller() -> FrameType:
    frame = sys._getframe(1)  # noqa: SLF001 - `warnings` has no other way, before 3.12
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_BETWEEN):
        frame = frame.f_back
    return frame
