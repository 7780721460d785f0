"""Reports coroutines that do not end when they are cancelled, and counts them. It must never end one itself."""

from __future__ import annotations

import asyncio
import io
import traceback
from types import FrameType
from typing import Any

from worker.ground.logs import get_logger
from worker.settings import Settings
from worker.threads.frames import frame_of

logger = get_logger(__name__)

_overruns = 0


def overruns() -> int:
    """The number of this process's cancelled coroutines that did not end in time."""
    return _overruns


def cleanup_seconds() -> float:
    """Seconds that a cancelled coroutine may clean up."""
    return Settings.in_force().cleanup_timeout.total_seconds()


def report_overrun(interrupt: BaseException, task: asyncio.Task[Any] | None, thread_id: int) -> None:
    """Reports a coroutine that swallows its cancellation, or takes too long to clean up.

    Args:
        interrupt: The interrupt that cancelled it; it gets a note with the place.
        task: The coroutine's task, or None if it was not made yet.
        thread_id: The thread of its loop, or the one that waits for it.
    """
    global _overruns
    _overruns += 1
    where = _where(task, thread_id)
    said = f"the coroutine did not end within {cleanup_seconds():g} s of its cancellation"
    interrupt.add_note(f"{said}:\n{where}")
    logger.error(said, exception=repr(interrupt), stack=where)


def _where(task: asyncio.Task[Any] | None, thread_id: int) -> str:
    out = io.StringIO()
    if task is not None:
        out.write(f"{task!r}\n{_suspended_at(task.get_coro())}")
    if (frame := frame_of(thread_id)) is not None:
        out.write("its thread:\n")
        traceback.print_stack(frame, limit=10, file=out)
    return out.getvalue()


def _suspended_at(coroutine: object) -> str:
    """The stack of a waiting coroutine, down to the place of its wait; a task shows only its outermost frame."""
    frames: list[tuple[FrameType, int]] = []
    while (frame := _any_of(coroutine, "cr_frame", "gi_frame", "ag_frame")) is not None:
        frames.append((frame, frame.f_lineno))
        coroutine = _any_of(coroutine, "cr_await", "gi_yieldfrom", "ag_await")
    return "".join(traceback.StackSummary.extract(iter(frames)).format())


def _any_of(one: object, *names: str) -> Any:  # noqa: ANN401 - coroutines and generators of all kinds
    return next((found for name in names if (found := getattr(one, name, None)) is not None), None)
