"""A new event loop that costs little until it first sleeps, and the orderly end of any loop.

The standard loop makes an epoll descriptor and a pair of sockets before it runs anything. That is most of the cost of
a short call. This loop sleeps on a lock as long as it has no descriptors to watch. It makes its wake-up sockets before
its first sleep on a descriptor, and polls without a descriptor of its own.

This needs private parts of asyncio, which no other module uses. If one is missing, `new_loop` returns the standard
loop; the bridge keeps its promises on both.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import importlib
import selectors
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from worker.errors import ConfigurationError
from worker.ground.logs import get_logger
from worker.loops.executor import end_executor, give_executor
from worker.loops.loop_resources import close_loop_resources, has_loop_resources
from worker.loops.watchdog import Turns, watch, watch_loops_of_this_thread
from worker.settings import Settings
from worker.threads.doorbell import Doorbell
from worker.threads.os_threads import GEVENT
from worker.threads.unpatched import DefaultSelector, PollSelector

T = TypeVar("T")

logger = get_logger(__name__)

_NEEDED = ("_make_self_pipe", "_close_self_pipe", "_write_to_self")
_NEEDED_OF_A_LOOP = ("_ready", "_scheduled", "_asyncgens", "_default_executor", "_selector", "_csock")


class _AsksWhenNeeded(selectors.BaseSelector):
    """A selector that tells its loop before the first sleep, and leaves out system calls with a known answer."""

    loop: FreshLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        if loop is None:
            return super().select(timeout)
        turns = loop.turns
        waits = timeout is None or timeout > 0
        # There is nothing to watch, except perhaps the socket that wakes the loop.
        alone = loop.may_nap and len(self.get_map()) <= loop.own_descriptors
        if alone and not waits:
            if turns is not None:
                turns.next()
            return []
        if turns is not None:
            turns.end()
        found = loop.nap(timeout) if alone else super().select(0 if waits and loop.prepare_to_sleep() else timeout)
        if turns is not None:
            turns.begin()
        return found


class _Poll(_AsksWhenNeeded, PollSelector):
    """A selector without a descriptor of its own, for the few descriptors of a short call."""


class _Default(_AsksWhenNeeded, DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector for a loop with many descriptors."""


class FreshLoop(asyncio.SelectorEventLoop):
    """An event loop whose start costs little.

    Args:
        selector: The selector that the loop waits with.
    """

    def __init__(self, selector: _AsksWhenNeeded) -> None:
        self.own_descriptors = 0
        self.may_nap = True
        self._doorbell = Doorbell()
        self.turns: Turns | None = None
        self._may_make_pipe = False
        self._made_tasks = False
        self._ssock: Any = None
        self._csock: Any = None
        super().__init__(selector)
        self._may_make_pipe = True
        selector.loop = self

    def nap(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Sleeps on a lock, which is much cheaper to wake than a descriptor; only threads can wake it."""
        self._doorbell.sleep(unless=self._ready.__len__, timeout=timeout)  # type: ignore[attr-defined]
        return []

    def add_signal_handler(  # type: ignore[override]  # noqa: D102 - asyncio's own
        self,
        sig: int,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401
    ) -> None:
        # A signal wakes the loop through its socket.
        self.may_nap = False
        self.prepare_to_sleep()
        super().add_signal_handler(sig, callback, *args)

    def prepare_to_sleep(self) -> bool:
        """Makes the wake-up sockets, if they are missing; True if callbacks are ready, so that it must not sleep."""
        if self._csock is None:
            self._make_self_pipe()
            self.own_descriptors = 1
            # The order of docs/explanation/waking-without-a-lock.md: another thread queues its callback, then looks
            # for the socket.
            return bool(self._ready)  # type: ignore[attr-defined]
        return False

    def run_in_executor(  # type: ignore[override]  # noqa: D102 - asyncio's own
        self,
        executor: concurrent.futures.Executor | None,
        func: Callable[..., T],
        *args: Any,  # noqa: ANN401
    ) -> asyncio.Future[T]:
        if executor is None and not self._default_executor and not self.is_closed():  # type: ignore[attr-defined]
            give_executor(self)
        return super().run_in_executor(executor, func, *args)

    def is_plain(self) -> bool:
        """Whether nothing is left on the loop: no task, callback, descriptor, generator, executor or resource."""
        return not (
            self._made_tasks
            or self._csock is not None
            or self._ready  # type: ignore[attr-defined]
            or self._scheduled  # type: ignore[attr-defined]
            or self._asyncgens  # type: ignore[attr-defined]
            or self._default_executor  # type: ignore[attr-defined]
            or getattr(self, "_transports", None)
            or has_loop_resources(self)
        )

    def create_task(  # noqa: D102 - asyncio's own
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,  # noqa: ANN401 - later versions of Python add some
    ) -> asyncio.Task[T]:
        self._made_tasks = True
        return super().create_task(coro, name=name, context=context, **options)

    def main_task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The task for which the loop was made; it never counts as left over."""
        return super().create_task(coroutine)

    def _write_to_self(self) -> None:
        if not self._doorbell.ring():
            super()._write_to_self()  # type: ignore[misc]

    def _make_self_pipe(self) -> None:
        if self._may_make_pipe:
            super()._make_self_pipe()  # type: ignore[misc]

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            super()._close_self_pipe()  # type: ignore[misc]


def _is_possible() -> bool:
    if not all(hasattr(asyncio.SelectorEventLoop, name) for name in _NEEDED) or not hasattr(selectors, "PollSelector"):
        return False
    loop = asyncio.SelectorEventLoop()
    try:
        return all(hasattr(loop, name) for name in _NEEDED_OF_A_LOOP)
    finally:
        loop.close()


_possible: bool | None = None


def new_loop(*, long_lived: bool = False) -> asyncio.AbstractEventLoop:
    """A new event loop; of the program's own kind, if the program has set a policy (such as uvloop's).

    Under gevent it is always the standard library's: other loops would start child processes, and lose them.

    Args:
        long_lived: Whether it lives as long as the process: then it is of the kind that `WORKER_LOOP` says.

    Raises:
        ConfigurationError: `WORKER_LOOP=uvloop`, and uvloop is not installed.
    """
    global _possible
    if long_lived and not GEVENT and not _has_a_policy() and (made := _uvloop()) is not None:
        give_executor(made)
        return made
    if _possible is None:
        _possible = _is_possible()
    if _possible and (GEVENT or not _has_a_policy()):
        return FreshLoop(_Default() if long_lived else _Poll())
    loop = asyncio.SelectorEventLoop(DefaultSelector()) if GEVENT else asyncio.new_event_loop()
    give_executor(loop)
    return loop


def _uvloop() -> asyncio.AbstractEventLoop | None:
    """A loop of uvloop, or None if it is not wanted or not installed."""
    wanted = Settings.in_force().loop
    if wanted == "asyncio":
        return None
    try:
        made: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    except ModuleNotFoundError as error:
        if wanted == "auto":
            return None
        raise ConfigurationError("WORKER_LOOP=uvloop needs uvloop: pip install 'dramatiq-bridge[uvloop]'") from error
    return made


def _has_a_policy() -> bool:
    """Whether the program has set a policy of another kind than asyncio's own."""
    # Read where asyncio keeps it: to ask for the policy is deprecated, and makes one.
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    return policy is not None and not type(policy).__module__.startswith("asyncio.")


def watch_loop(loop: asyncio.AbstractEventLoop, *, shared: bool = False) -> Turns | None:
    """Lets the watchdog watch a loop that the calling thread is about to run; None if the watchdog is off.

    Args:
        loop: The loop.
        shared: Whether many attempts share it: then each is charged with its own stalls.
    """
    if not isinstance(loop, FreshLoop):
        return watch(loop, shared=shared)
    loop.turns = turns = watch(loop, shared=True, reports=True) if shared else watch_loops_of_this_thread()
    if turns is not None:
        turns.begin()
    return turns


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends all that lives on a stopped loop, each before the things it depends on, and closes the loop."""
    try:
        if not (isinstance(loop, FreshLoop) and loop.is_plain()):
            run_to_its_end(loop, lambda: _end(loop))
    finally:
        loop.close()


def run_to_its_end(
    loop: asyncio.AbstractEventLoop, cleanup: Callable[[], Coroutine[Any, Any, object]], *, patient: bool = True
) -> None:
    """Runs a cleanup to its end, also if a task raises `SystemExit` or the like, which stops an asyncio loop.

    Errors of tasks are logged. After Ctrl-C the cleanup still runs to its end; a second Ctrl-C ends it at once.

    Args:
        loop: A stopped loop.
        cleanup: Makes the cleanup's coroutine; called again if Ctrl-C hits the cleanup itself.
        patient: False if the first Ctrl-C came before this call, so that the next one ends the cleanup.

    Raises:
        KeyboardInterrupt: Ctrl-C came during the cleanup.
    """
    ctrl_c: KeyboardInterrupt | None = None
    ending = loop.create_task(cleanup())
    while not ending.done():
        try:
            loop.run_until_complete(ending)
        except (SystemExit, KeyboardInterrupt) as error:
            # Signals arrive only in the main thread; in other threads a task has raised it.
            if isinstance(error, SystemExit) or threading.current_thread() is not threading.main_thread():
                logger.error("a task that was left over wanted to end the program", error=repr(error))  # noqa: TRY400
                continue
            if ctrl_c is not None or not patient:
                raise
            ctrl_c = error
            if ending.done() and ending.exception() is error:
                ending = loop.create_task(cleanup())
    if ctrl_c is not None:
        raise ctrl_c


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    await _cancel_other_tasks(loop)
    if getattr(loop, "_asyncgens", True):
        await _in_time(loop.shutdown_asyncgens(), "async generators")
    await end_executor(loop)
    if has_loop_resources(loop):
        await _in_time(close_loop_resources(), "loop resources")
    for transport in list(getattr(loop, "_transports", {}).values()):
        transport.abort()
    # A closed transport needs one more turn of the loop to be gone.
    await asyncio.sleep(0)


def _cleanup_seconds() -> float:
    return Settings.in_force().cleanup_timeout.total_seconds()


async def _in_time(cleanup: Coroutine[Any, Any, None], what: str) -> None:
    """Awaits a cleanup within its time limit; a client that closes badly must not change the outcome of the work."""
    closing = asyncio.create_task(cleanup)
    done, _ = await asyncio.wait([closing], timeout=_cleanup_seconds())
    if not done:
        closing.cancel()
        done, _ = await asyncio.wait([closing], timeout=_cleanup_seconds())
    if not done:
        logger.error("closing does not end although it is cancelled", what=what)
        return
    try:
        closing.result()
    except asyncio.CancelledError:
        logger.exception("closing took too long and was cancelled", what=what)
    except BaseException:  # an error that ends the program has gone through the loop already
        logger.exception("closing failed", what=what)


async def _cancel_other_tasks(loop: asyncio.AbstractEventLoop) -> None:
    others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    if not others:
        return
    # The bridge has closed a coroutine that did not end: its task can only fail.
    closed = {task for task in others if getattr(task.get_coro(), "cr_frame", task) is None}
    for task in others:
        task.cancel()
    done, pending = await asyncio.wait(others, timeout=_cleanup_seconds())
    for task in pending:
        logger.error("a task did not end when cancelled", task=task.get_name(), coroutine=repr(task.get_coro()))
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None and task not in closed:
            logger.error("a task that was left over failed", task=task.get_name(), exc_info=error)
