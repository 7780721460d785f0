"""Interrupts of others: plug-ins, such as dramatiq-abort, that raise an exception in a worker's thread.

While that thread waits for a coroutine, such an exception would never reach it. While workers run, it goes the way of a
time limit. Threads that run no attempt are left alone. The shared loop's thread gets none: it runs all coroutines.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from typing import Any

from dramatiq.middleware.threading import Interrupt

from worker.attempts.run import AttemptRun
from worker.attempts.running import RunningAttempts
from worker.ground.logs import get_logger
from worker.loops.shared_loop import is_shared_loop

logger = get_logger(__name__)

# Dramatiq's `raise_thread_exception`, which plug-ins have imported by name, and all others look here for the function.
_PLACE = ctypes.pythonapi
_NAME = "PyThreadState_SetAsyncExc"

_set_exception = getattr(_PLACE, _NAME)
_registries: list[RunningAttempts] = []
_lock = threading.Lock()


def divert_to(running: RunningAttempts) -> None:
    """Diverts exceptions that others raise in the threads of these attempts, until `divert_no_more`."""
    with _lock:
        _registries.append(running)
        setattr(_PLACE, _NAME, _divert)


def divert_no_more(running: RunningAttempts) -> None:
    """Undoes `divert_to`."""
    with _lock:
        with contextlib.suppress(ValueError):
            _registries.remove(running)
        if not _registries and getattr(_PLACE, _NAME) is _divert:
            setattr(_PLACE, _NAME, _set_exception)


def _divert(thread_id: Any, exception: Any) -> int:  # noqa: ANN401 - numbers and objects, of ctypes or not
    """Answers as CPython's function does: how many threads have got the exception."""
    number = getattr(thread_id, "value", thread_id)
    error = _made_of(exception)
    if error is not None and is_shared_loop(number):
        logger.error(
            "an exception for the thread of the shared loop is refused: it would hit every coroutine there",
            exception=repr(error),
            remedy="cancel the message instead",
        )
        return 0
    run = _run_in(number)
    if run is not None and error is not None and _reaches(run, error):
        return 1
    count: int = _set_exception(thread_id, exception)
    return count


def _reaches(run: AttemptRun, error: BaseException) -> bool:
    if not isinstance(error, Interrupt):
        # It may be caught and the work go on: it is not the attempt's one interrupt.
        return run.cancel_coroutine(error)
    if not run.interrupt(error):
        logger.info("an interrupt came after the end and is dropped", exception=repr(error))
    return True


def _run_in(thread_id: int) -> AttemptRun | None:
    return next((run for running in list(_registries) for run in running if run.thread_id == thread_id), None)


def _made_of(exception: Any) -> BaseException | None:  # noqa: ANN401 - see `_divert`
    """The exception, made as CPython would make it; None if one that waits is taken back."""
    with contextlib.suppress(ValueError):  # a null pointer
        exception = getattr(exception, "value", exception)
    if isinstance(exception, type) and issubclass(exception, BaseException):
        return exception()
    return exception if isinstance(exception, BaseException) else None
