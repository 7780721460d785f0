"""The time that calls to the server may take as a whole, with connecting, handshakes and repeated tries.

`within(seconds)` bounds all calls of its thread, or its greenlet, in the block; of nested bounds, that one holds which
ends first. The connections of `worker.server.wires` call `bound_waits` before they wait.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Any, TypeVar

from redis.exceptions import AuthenticationError
from redis.retry import Retry

T = TypeVar("T")

_SHORTEST = 0.001
_EXACT_ENOUGH = 0.9


class _Bound(threading.local):
    until = inf


_bound = _Bound()


class within:  # noqa: N801 - a context manager that every command enters: a generator would cost thrice as much
    """Bounds the calls of this thread in the block to so many seconds altogether.

    Args:
        seconds: Seconds from the begin of the block; an outer bound that ends earlier stays in force.
    """

    __slots__ = ("_outer", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._outer = inf

    def __enter__(self) -> None:
        self._outer = _bound.until
        _bound.until = min(self._outer, time.monotonic() + self._seconds)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _bound.until = self._outer


def seconds_left() -> float:
    """The seconds that are left to this thread's call, at least 0; infinite outside of all bounds."""
    until = _bound.until
    return inf if until == inf else max(0.0, until - time.monotonic())


def left_or(own: float | None) -> float | None:
    """The seconds that one wait may take now: those that are left to this thread's call, or `own` without a bound.

    At least a millisecond, in which what has come already can be read.
    """
    until = _bound.until
    return own if until == inf else max(_SHORTEST, until - time.monotonic())


def bound_waits(sock: socket.socket, own: float | None) -> None:
    """Gives a socket the time that is left, to a tenth: not before every wait, because the system is asked for it."""
    wanted, present = left_or(own), sock.gettimeout()
    if wanted is None or present is None or not _EXACT_ENOUGH * present <= wanted <= present / _EXACT_ENOUGH:
        sock.settimeout(wanted)


class BoundedRetry(Retry):
    """Tries again as redis-py does, while there is time left."""

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """The answer of `do`, which is called again after an error that may pass."""

        def is_worth_it(error: Exception) -> bool:
            # A wrong password does not become right meanwhile.
            may_pass = seconds_left() > 0 and not isinstance(error, AuthenticationError)
            return may_pass and (is_retryable is None or is_retryable(error))

        return super().call_with_retry(do, fail, is_worth_it, with_failure_count)
