"""Exception groups: the errors in them, and the one that decides. No other module looks into a group.

An error that is no group is treated as a group of one.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum

from worker.errors import Fatal, NoContentFound, RetryLater

_NO_INTERRUPTS = asyncio.CancelledError | SystemExit | KeyboardInterrupt | GeneratorExit
"""Errors of the work itself, although they are no `Exception`."""

ON_PURPOSE = (RetryLater, Fatal, NoContentFound)
"""The errors with which a service decides the next step."""


class _Weight(IntEnum):
    """Kinds of errors; the first kind that a group holds decides."""

    INTERRUPT = 0
    FATAL = 1
    PLAIN = 2
    LATER = 3
    SKIP = 4


def errors_in(error: BaseException) -> list[BaseException]:
    """The errors in a group, also those in groups inside it, in their order; of another error, the error itself."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting += reversed(one.exceptions)
        else:
            found.append(one)
    return found


def release(error: BaseException) -> None:
    """Drops the tracebacks of groups in an error with which all are done.

    The frame of Python's own `TaskGroup` that raises a group still has it: what the frames hold would stay until the
    collector runs.
    """
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            one.with_traceback(None)
            waiting += one.exceptions


def deciding(error: BaseException) -> BaseException:
    """The error that decides the fate of a message: in a group one of its errors, else the error itself.

    An interrupt decides over all; then `Fatal`; then a plain error; then `RetryLater` with the longest delay; and
    `NoContentFound` only if there is nothing else.
    """
    return error if not isinstance(error, BaseExceptionGroup) else min(errors_in(error), key=_order)


def groups_of(expected: tuple[type[BaseException], ...]) -> type:
    """A class for `isinstance`: its instances are the groups in which an expected error decides.

    None of their errors is a surprise: each is expected, or was raised on purpose.
    """

    class Kind(type):
        def __instancecheck__(cls, error: object) -> bool:
            return (
                isinstance(error, BaseExceptionGroup)
                and isinstance(deciding(error), expected)
                and all(isinstance(one, (*expected, *ON_PURPOSE)) for one in errors_in(error))
            )

    return Kind("GroupOfExpected", (), {})


def _order(error: BaseException) -> tuple[_Weight, float]:
    weight = _weight(error)
    return weight, -error.delay.total_seconds() if isinstance(error, RetryLater) else 0.0


def _weight(error: BaseException) -> _Weight:
    if not isinstance(error, Exception | _NO_INTERRUPTS):
        return _Weight.INTERRUPT
    if isinstance(error, Fatal):
        return _Weight.FATAL
    if isinstance(error, RetryLater):
        return _Weight.LATER
    return _Weight.SKIP if isinstance(error, NoContentFound) else _Weight.PLAIN
