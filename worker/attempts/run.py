"""One attempt from its begin to its end: its events, its interrupt, and the account of its calls.

It does not know its runner. The runner enters it, runs the body inside `run_body` (a worker thread) or
`await_body` (the shared loop), and ends it.
Recording never fails the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import replace
from math import inf
from typing import TypeVar, cast

from dramatiq.broker import MessageProxy
from dramatiq.middleware.shutdown import Shutdown
from dramatiq.middleware.threading import Interrupt
from dramatiq.middleware.time_limit import TimeLimitExceeded

from worker.attempts.attempt import Attempt
from worker.attempts.spans import Span, message_state
from worker.ground.durations import format_duration
from worker.ground.scope import scope
from worker.history.events import Recorder, State, Subject, UsualEvent
from worker.loops.account import Account
from worker.loops.interrupts import Section, run_in_section
from worker.loops.overruns import cleanup_seconds
from worker.loops.task_section import SectionTask, TaskSection
from worker.loops.watchdog import OWNER

R = TypeVar("R")


class Cancelled(Interrupt):
    """A person cancelled the attempt: CANCELLED, acknowledged and not retried."""


class AttemptRun:
    """One attempt, from the moment when its message has a runner until its end is decided.

    Args:
        message: The message as the runner has it.
        recorder: The recorder of its events.
        number: The attempt's number.
        fence: The fence of the message's delivery.
        queued_ms: Milliseconds between the time the message was due and now.

    Attributes:
        message: The message as the runner has it.
        recorder: The recorder of its events.
        account: The account of its calls.
        key: The message's id and the fence: no two attempts share them.
        begun_at: The time of its begin, in seconds since the epoch.
        cancelled: Whether a person cancelled it.
        in_body: Whether the actor's function runs.
        has_ended: Whether its end was recorded.
        due_at: The time of its interrupt, on the monotonic clock, or infinity.
        due_interrupt: The exception of that interrupt.
        span: Its outermost status context, or None as long as there is none.
        thread_id: The thread that is its own while it runs, or 0: on the loop it has none.
    """

    __slots__ = (
        "_attempt",
        "_interrupt",
        "_limit",
        "_number",
        "_own",
        "_queued_ms",
        "_section",
        "_started_at",
        "account",
        "begun_at",
        "cancelled",
        "due_at",
        "due_interrupt",
        "has_ended",
        "in_body",
        "key",
        "message",
        "recorder",
        "span",
        "thread_id",
    )

    def __init__(self, message: MessageProxy, recorder: Recorder, *, number: int, fence: int, queued_ms: float) -> None:
        message_id = message.message_id
        self.message = message
        self.recorder = recorder
        self.key = message_id, fence
        self.begun_at = time.time()
        self.cancelled = False
        self.in_body = False
        self.has_ended = False
        self.due_at = inf
        self.due_interrupt: type[BaseException] | None = None
        self.span: Span | None = None
        self.thread_id = 0
        self._started_at = time.monotonic()
        self.account = Account((message.actor_name, message_id))
        self._number = number
        self._queued_ms = queued_ms
        self._attempt: Attempt | None = None
        self._interrupt: BaseException | None = None
        self._section: Section | TaskSection | None = None
        self._own: tuple[str, Subject] | None = None

    @property
    def attempt(self) -> Attempt:
        """The facts about the attempt, as its service sees them; made when somebody asks."""
        if self._attempt is None:
            message_id, fence = self.key
            message = self.message
            self._attempt = Attempt(
                message_id, message.actor_name, message.queue_name, self._number, fence, self._queued_ms
            )
        return self._attempt

    # ------------------------------------------------------------------ the runner's side

    def enter(self, *, has_thread: bool = True) -> None:
        """Makes this the attempt of the calling context, until `leave`."""
        self.thread_id = threading.get_ident() if has_thread else 0
        scope.set(self)

    def leave(self) -> None:
        """Undoes `enter`, in the same context."""
        # On the loop, its context ends with it.
        if self.thread_id and current_run.get() is self:
            scope.set(None)

    def log_fields(self) -> Mapping[str, object]:
        """The fields that each of its log lines bears."""
        attempt = self.attempt
        return {"message_id": attempt.message_id, "actor": attempt.actor, "attempt": attempt.number}

    @property
    def is_snoozed(self) -> bool:
        """Whether it has ended, and its message comes back at the time that it asked for."""
        return self.has_ended and self.span is not None and self.span.outcome is State.SNOOZED

    def run_body(self, function: Callable[[], R]) -> R:
        """Runs the actor's function as the part that interrupts reach. The runner's thread calls it.

        The function sees the context of its runner, in a copy: what it binds ends with it.

        Raises:
            BaseException: The interrupt, or the function's error.
        """
        self.in_body = True
        try:
            return copy_context().run(run_in_section, function, self._open)
        finally:
            self.in_body = False
            self._interrupt = None  # its traceback has this frame

    async def await_body(
        self, function: Callable[[], Awaitable[R]], task: SectionTask, charge: Callable[[Account], object]
    ) -> R:
        """Runs the actor's async function as the part that interrupts reach. The runner's task calls it.

        The task has a context of its own, which ends with it.

        Args:
            function: Makes the coroutine.
            task: The running task.
            charge: Called at the coroutine's end, to charge this attempt if it blocks the loop at present.

        Raises:
            BaseException: The interrupt, or the function's error.
        """
        setattr(task, OWNER, self.account)
        section = TaskSection(task)
        result: R | None = None
        error: BaseException | None = None
        self.in_body = True
        try:
            self._open(section)
            result = await function()
        except BaseException as raised:  # noqa: BLE001 - an edge: the section decides on the error that is raised
            error = raised
        self.in_body = False
        try:
            error = section.end(error)
            if task.cancelling():
                await task.forget_cancel()
            charge(self.account)
            self._interrupt = None  # its traceback has this frame
            if self.account.has_unfinished:
                await self.account.wait_on_loop()
            if error is not None:
                raise error
        finally:
            del error
        return cast("R", result)

    def _open(self, section: Section | TaskSection) -> None:
        # Say first, then look: docs/explanation/waking-without-a-lock.md. An interrupter says what it wants.
        self._section = section
        if self._interrupt is not None and section.claim(self._interrupt):
            raise self._interrupt

    # ------------------------------------------------------------------ its own context, if the actor is one

    def open(self, prefix: str, subject: Subject) -> UsualEvent:
        """Enters a status context of the attempt's own, which is made only if something needs it; returns STARTED.

        Args:
            prefix: The actor's name, as the name of the events.
            subject: The subject of the message.
        """
        self._own = prefix, subject
        return UsualEvent(State.STARTED, self.begun_at, self._number, self._queued_ms, subject)

    def own_span(self) -> Span:
        """The context of the attempt's own, made now."""
        if self.span is None:
            # An actor without a context has its name and nothing else.
            prefix, subject = self._own or (self.attempt.actor, {})
            self.span = Span(prefix, "", subject)
            is_recorded = self._own is not None
            self.span.start(
                self.recorder, attempt=self.attempt, root=None, outer=None, at=self._started_at, is_recorded=is_recorded
            )
        return self.span

    @property
    def is_open(self) -> bool:
        """Whether it has a status context of its own."""
        return self._own is not None

    def usual_end(self) -> UsualEvent | None:
        """Ends an attempt in which nothing needed its own context, and returns COMPLETED; None for any other."""
        if self._own is None or self.span is not None or self.account.blocked is not None or self.account.note:
            return None
        self.has_ended = True
        took = (time.monotonic() - self._started_at) * 1000
        return UsualEvent(State.COMPLETED, time.time(), self._number, self._queued_ms, self._own[1], took)

    # ------------------------------------------------------------------ interrupts, from any thread

    def interrupt(self, exception: BaseException) -> bool:
        """Interrupts the body, now or as soon as it begins; False if the body has ended.

        Only the first interrupt counts. A coroutine is cancelled through its loop and cleans up; sync code is
        interrupted when its thread next runs Python.
        """
        if isinstance(exception, Shutdown):
            # Its process ends, and threads that cannot be stopped end with it.
            self.account.leave_after(cleanup_seconds())
        first = self._interrupt
        if first is None:
            first = self._interrupt = exception
        section = self._section
        return section is None or section.interrupt(first)

    def cancel_coroutine(self, exception: BaseException) -> bool:
        """Cancels the coroutine for which the body waits, which raises this exception; False if it waits for none."""
        section = self._section
        return section is not None and section.cancel_call(exception)

    def cancel(self) -> None:
        """Cancels the attempt: it ends CANCELLED, also if its clean-up fails, unless its body has ended."""
        self.cancelled = True
        self.interrupt(Cancelled())

    def limit(self, seconds: float, interrupt: type[BaseException]) -> float:
        """Sets the deadline to this many seconds from now, unless it is sooner; returns it, on the monotonic clock."""
        at = time.monotonic() + seconds
        if at < self.due_at:
            self.due_interrupt = interrupt
            self.due_at = at
            self._limit = seconds
        return at

    # ------------------------------------------------------------------ its end

    def skip(self, error: BaseException) -> None:
        """Takes the error by which its body says that there is nothing to do."""
        self.own_span().see(error)

    def end(
        self,
        error: BaseException | None,
        *,
        state: State | None = None,
        outlook: str = "",
        becomes: str | None = None,
    ) -> None:
        """Records the end of the attempt, once: with `error`, or as its outermost context ended, or as COMPLETED.

        Args:
            error: The error that escaped from the actor, or None.
            state: The attempt's state, if the error alone does not decide it.
            outlook: The next step of the message, as a text for people.
            becomes: The message's state after the attempt, or None for the attempt's own.
        """
        if self.has_ended:
            return
        self.has_ended = True
        span = self.own_span()
        if error is None and span.outcome in (State.FAILED, State.SNOOZED):
            # The actor handled the error that its context saw: the message is acknowledged.
            span.outcome = State.COMPLETED
        span.see(error)
        if self.due_interrupt is TimeLimitExceeded and isinstance(error, TimeLimitExceeded) and span.error is not None:
            limit = format_duration(self._limit)
            span.error = replace(span.error, text=f"it took longer than its time limit of {limit}")
        if becomes != "delayed":
            span.is_not_retried()
        if error is None and state is not None:
            span.error = None  # its context saw only the interrupt
        span.outcome = state or span.outcome
        if state is None and error is not None and span.outcome is State.CANCELLED:
            span.outcome = State.FAILED  # nobody has asked for it
        span.text = "; ".join(part for part in (span.text, outlook, self.account.note) if part)
        event = span.ending((time.monotonic() - self._started_at) * 1000, self.account.blocked)
        self.recorder.record_end(event, becomes or message_state(event.state))


current_run = cast("ContextVar[AttemptRun | None]", scope)
"""The attempt that runs in this context, or None."""


def current_attempt() -> Attempt | None:
    """The attempt in which this code runs, also inside the bridge and the thread pool, or None outside a worker."""
    run = current_run.get()
    return run.attempt if run is not None else None
