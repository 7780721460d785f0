"""Runs messages of async actors on the process's shared loop: an attempt that waits takes no thread.

It does for a message what Dramatiq's worker thread does, with the same hooks in the same order. Nothing here may block:
it would hold up all attempts of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from dramatiq.broker import Broker
from dramatiq.errors import RateLimitExceeded, Retry
from dramatiq.logging import get_logger
from dramatiq.middleware import SkipMessage
from dramatiq.worker import has_results_middleware

from worker.attempts.loop_body import LoopBody, loop_body
from worker.attempts.run import AttemptRun
from worker.attempts.running import RunningAttempts
from worker.attempts.runs import delivered_run
from worker.broker.loop_hooks import waits_for_a_server
from worker.broker.taken import Keeper, TakenMessage
from worker.errors import LoopClosedError, SelfCancelledError
from worker.history.events import UsualEvent
from worker.loops.shared_loop import SharedLoop, shared_loop
from worker.loops.task_section import SectionTask
from worker.loops.thread_pool import ThreadPool

R = TypeVar("R")

# Users know these lines, and filter them, by this name.
logger = get_logger("dramatiq.worker", "WorkerThread")

_LOOK_EVERY = 0.05
"""Seconds between two looks at a lease that is not held."""

_JOIN_EVERY = 0.02
_ASIDE = 8


class LoopRunner:
    """The attempts on the shared loop, and the messages that wait for their turn. Dramatiq's worker joins it.

    Args:
        broker: The broker, whose hooks are called.
        running: The attempts that run in this process.
        size: The most attempts at once.

    Attributes:
        size: The most attempts at once.
        paused_event: Set while it is paused.
    """

    def __init__(self, broker: Broker, running: RunningAttempts, size: int) -> None:
        self.size = size
        self.paused_event = threading.Event()
        self._broker = broker
        self._running = running
        self._waits_for_a_server = waits_for_a_server(broker)
        self._context = contextvars.copy_context()
        self._waiting: list[tuple[int, int, TakenMessage]] = []
        self._numbers = itertools.count()
        self._tasks: set[SectionTask] = set()
        self._called = False
        # Of its own: blocking calls of services never keep an attempt from its end.
        self._threads = ThreadPool(_ASIDE, "aside")

    # ------------------------------------------------------------------ the reader's side

    def put_all(self, messages: Iterable[TakenMessage]) -> None:
        """Adds messages, which begin as soon as there is room for them."""
        for message in messages:
            # The numbers decide before messages are compared, so that pushing is one step of the interpreter.
            heapq.heappush(self._waiting, (message.priority, next(self._numbers), message))
        self._call()

    def drain(self) -> list[TakenMessage]:
        """Takes back all messages that were not begun, the most urgent first."""
        return list(iter(self._next, None))

    def _next(self) -> TakenMessage | None:
        try:
            return heapq.heappop(self._waiting)[2]
        except IndexError:
            return None

    def _call(self) -> None:
        """Wakes the loop to begin messages; one call serves all that come before it is awake."""
        # Say first, then look: docs/explanation/waking-without-a-lock.md. What waits was added before.
        while not self._called:
            self._called = True
            try:
                shared = shared_loop()
                shared.post(functools.partial(self._begin, shared))
            except LoopClosedError:
                self._called = False  # another loop takes its place, or the process ends
                time.sleep(_LOOK_EVERY)

    # ------------------------------------------------------------------ the worker's side

    def pause(self) -> None:
        """Begins no message until `resume`."""
        self.paused_event.set()

    def resume(self) -> None:
        """Begins messages again."""
        self.paused_event.clear()
        self._call()

    def stop(self) -> None:
        """Does nothing: the session gives back what waits, and attempts end by themselves or are interrupted."""

    def join(self, timeout: float | None = None) -> None:
        """Waits until no attempt runs, at most `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._tasks and (deadline is None or time.monotonic() < deadline):
            time.sleep(_JOIN_EVERY)
        if not self._tasks:
            self._threads.close(0)

    # ------------------------------------------------------------------ on the loop

    def _begin(self, shared: SharedLoop) -> None:
        self._called = False
        if shared.is_stopping:
            self._call()
            return
        while len(self._tasks) < self.size and not self.paused_event.is_set() and (message := self._next()) is not None:
            # A context of its own: what an attempt binds ends with it.
            context = self._context.copy()
            # Not by the loop, which would look for the attempt in which it is made.
            self._tasks.add(SectionTask(self._run(message, shared, context), loop=shared.loop, context=context))

    async def _run(self, message: TakenMessage, shared: SharedLoop, context: contextvars.Context) -> None:
        """One message, and then what waits for its place."""
        task = cast("SectionTask", asyncio.current_task(shared.loop))
        try:
            error, result = await self._outcome_of(message, shared, task)
            try:
                if self._waits_for_a_server(message):
                    # In the attempt's own context, which its task does not use meanwhile.
                    await self._aside(functools.partial(context.run, self._finish, message, result, error))
                else:
                    self._finish(message, result, error)
            finally:
                del error  # its traceback has frames that lead here
        finally:
            self._tasks.discard(task)
            if self._waiting:
                self._begin(shared)

    async def _outcome_of(
        self, message: TakenMessage, shared: SharedLoop, task: SectionTask
    ) -> tuple[BaseException | None, object]:
        """Runs the message's attempt; answers its error, or None, and its result."""
        try:
            run, body = await self._begin_attempt(message)
            self._broker.emit_before("process_message", message)
            if message.failed:
                return None, None
            work = functools.partial(body.run, run, message.args, message.kwargs)
            return None, await run.await_body(work, task, shared.charge)
        except SelfCancelledError as error:
            if not shared.is_stopping:
                return error, None
            stopped = LoopClosedError("the shared loop was stopped before the coroutine had ended")
            stopped.__cause__ = error
            return stopped, None
        except BaseException as error:  # noqa: BLE001 - an edge: here an attempt ends
            return error, None

    async def _begin_attempt(self, message: TakenMessage) -> tuple[AttemptRun, LoopBody]:
        """Begins the attempt as far as the server is concerned.

        Raises:
            SkipMessage: Another process has the message now, or it was cancelled.
        """
        body = loop_body(self._broker.get_actor(message.actor_name))
        keeper = message.keeper
        if body is None or keeper is None:
            raise TypeError(f"actor {message.actor_name} does not run on the loop")
        run = delivered_run(message)
        # Say first, then look: docs/explanation/waking-without-a-lock.md. A cancellation says so, then looks.
        self._running.add(run)
        started = run.open(body.name, body.subject_of(message.args, message.kwargs))
        if not await self._has_begun(keeper, message, run, started):
            self._running.remove(run)
            raise SkipMessage("the message has gone to another process, or was cancelled")
        return run, body

    async def _has_begun(self, keeper: Keeper, message: TakenMessage, run: AttemptRun, started: UsualEvent) -> bool:
        while (may := keeper.may_begin(message)) is None:  # noqa: ASYNC110 - the lease knows no loop
            await asyncio.sleep(_LOOK_EVERY)
        if not may:
            return False
        if keeper.take_begin(message, run, started):
            return await self._aside(functools.partial(keeper.is_begin_stored, message))
        return True

    async def _aside(self, function: Callable[[], R]) -> R:
        """Calls a function that waits for the server, in a thread."""
        return await asyncio.wrap_future(self._threads.submit(function))

    # ------------------------------------------------------------------ after the actor's function

    def _finish(self, message: TakenMessage, result: object, error: BaseException | None) -> None:
        try:
            self._tell(message, result, error)
        finally:
            self._acknowledge(message)
            message.clear_exception()

    def _tell(self, message: TakenMessage, result: object, error: BaseException | None) -> None:
        """Tells the middleware the outcome."""
        if isinstance(error, SkipMessage):
            if message.failed:
                message.stuff_exception(error)
            logger.warning("Message %s was skipped.", message)
            self._broker.emit_after("skip_message", message)
        elif error is not None:
            message.stuff_exception(error)
            self._tell_error(message, error)
        else:
            if result is not None:
                self._log_discarded(message)
            self._broker.emit_after("process_message", message, result=result)

    def _tell_error(self, message: TakenMessage, error: BaseException) -> None:
        """Tells the middleware the error while it is handled: some look for it there, as on Dramatiq's threads."""
        trace = error.__traceback__
        try:
            raise error  # noqa: TRY301 - so that it is handled here
        except BaseException:  # noqa: BLE001 - the error of the attempt, which has ended
            error.with_traceback(trace)  # without this frame; an error may refuse that its attributes are set
            self._log(message, error)
            self._broker.emit_after("process_message", message, exception=error)

    def _acknowledge(self, message: TakenMessage) -> None:
        signal = "nack" if message.failed else "ack"
        self._broker.emit_before(signal, message)
        if message.keeper is not None:
            message.keeper.end(message, rejected=message.failed)
        self._broker.emit_after(signal, message)

    def _log(self, message: TakenMessage, error: BaseException) -> None:
        """Logs an error as Dramatiq's worker thread does."""
        throws = message.options.get("throws") or self._broker.get_actor(message.actor_name).options.get("throws")
        if isinstance(error, RateLimitExceeded):
            logger.debug("Rate limit exceeded in message %s: %s.", message, error)
        elif throws and isinstance(error, throws):
            logger.info("Failed to process message %s with expected exception %s.", message, type(error).__name__)
        elif not isinstance(error, Retry):
            logger.error("Failed to process message %s with unhandled exception.", message, exc_info=error)

    def _log_discarded(self, message: TakenMessage) -> None:
        if message.options.get("pipe_target") is None and not has_results_middleware(self._broker):
            logger.warning(
                "Actor '%s' returned a value that is not None, and you haven't added the Results middleware to the "
                "broker, so the value has been discarded.",
                message.actor_name,
            )
