"""The default executor of our loops: `asyncio.to_thread` and `run_in_executor(None, …)` use the process's thread pool.

So they keep its promises: no second attempt of a message begins while a call of the first still runs, and no call keeps
the process from ending. Look-ups of names never wait for blocking calls: they have threads of their own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from worker.ground.logs import get_logger
from worker.loops.thread_pool import PoolCall, look_ups, name_of, pool
from worker.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

logger = get_logger(__name__)

# The functions that loops hand to their executor for a look-up, the third in debug mode.
_LOOK_UPS = {"getaddrinfo", "getnameinfo", "_getaddrinfo_debug"}


class LoopExecutor(concurrent.futures.ThreadPoolExecutor):
    """A `ThreadPoolExecutor`, because asyncio requires one, without threads of its own."""

    def __init__(self) -> None:
        super().__init__(pool().size)
        self._calls: set[PoolCall[Any]] = set()
        self._closed = False
        self.used = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[R]:
        """Queues a call in the process's pool; the function sees the caller's contextvars.

        Raises:
            RuntimeError: The loop, or the process, is ending.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.used = True
        function = functools.partial(contextvars.copy_context().run, fn, *args, **kwargs)
        if getattr(fn, "__name__", None) in _LOOK_UPS:
            return look_ups().submit(function)
        call = pool().submit(function, name_of(fn))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuses new calls.

        Args:
            wait: Whether to wait for the calls, at most `WORKER_CLEANUP_TIMEOUT`. What goes on then is cancelled and
                told; an attempt lasts until its own calls have ended.
            cancel_futures: Whether to cancel the calls that wait for a thread.
        """
        self._closed = True
        calls = list(self._calls)
        if cancel_futures:
            calls = [call for call in calls if call.running() or not call.cancel()]
        if not wait:
            return
        alone = [call for call in calls if not call.attempt_waits]
        concurrent.futures.wait(alone, Settings.in_force().cleanup_timeout.total_seconds())
        for call in alone:
            if not call.done():
                call.cancel()
                logger.warning("a blocking call goes on although its loop ends", function=call.name)


_given: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopExecutor] = weakref.WeakKeyDictionary()


def give_executor(loop: asyncio.AbstractEventLoop) -> None:
    """Makes the process's pool the default executor of a loop."""
    _given[loop] = executor = LoopExecutor()
    loop.set_default_executor(executor)


async def end_executor(loop: asyncio.AbstractEventLoop) -> None:
    """Ends the default executor of the running loop; costs nothing if no call was made."""
    given = _given.pop(loop, None)
    if given is None or given.used:
        await loop.shutdown_default_executor()
