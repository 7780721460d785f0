"""Begins and ends the run of each message: the outermost hooks of Dramatiq's middleware.

It must never fail or delay a message: the history records the outcome, and does not decide it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import MiddlewareError, SkipMessage, TimeLimitExceeded
from dramatiq.middleware.shutdown import Shutdown
from dramatiq.middleware.threading import Interrupt

from worker.attempts.foreign_interrupts import divert_no_more, divert_to
from worker.attempts.results import SETTLES, settled
from worker.attempts.run import AttemptRun, Cancelled, current_run
from worker.attempts.running import RunningAttempts
from worker.attempts.subjects import SUBJECT, check_subject
from worker.errors import NoContentFound
from worker.ground.durations import format_duration
from worker.ground.groups import deciding, groups_of, release
from worker.ground.logs import get_logger
from worker.history.events import Recorder, State, UsualEvent, Writer
from worker.loops.bridge import run_async_in_shared_loop
from worker.loops.shared_loop import stop_shared_loop

P = ParamSpec("P")
R = TypeVar("R")

logger = get_logger(__name__)

DUE = "due_ms"
"""The option with a message's due time, for brokers that do not store it; milliseconds since the epoch."""

DUE_AT = "eta"
"""Dramatiq's option with the due time of a delayed message, until it is due."""

WAITS = "waits"
"""The option with the number of attempts that ended without a retry being counted: those that waited for a lease."""

FLUSH_TIMEOUT = 5.0
"""Seconds that an acknowledgement waits for the event before it, if the broker does not store both together."""


class BadSubject(MiddlewareError, ValueError):
    """A subject that an actor cannot have; an error of the middleware's, for Dramatiq swallows all others."""


class Delivery(Recorder, Protocol):
    """A message as our own broker hands it out: it knows its attempt, and keeps its events."""

    attempt: int
    fence: int
    run: AttemptRun | None

    @property
    def queued_ms(self) -> float:
        """Milliseconds since the message was due."""

    def end_as_usual(self, event: UsualEvent) -> None:
        """Takes the event that ends an attempt in which nothing else happened."""

    def begin(self, run: AttemptRun) -> bool:
        """Begins the attempt; False if another process has the message, or it was cancelled before."""


def as_body(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function the body of an attempt: interrupts reach it, and no other part of the runner's work."""
    if getattr(function, "is_body", False):
        return function
    # `@actor` has seen to the result already, inside its status context.
    call = _call if getattr(function, SETTLES, False) else _call_and_settle

    @functools.wraps(function)
    def body(*args: P.args, **kwargs: P.kwargs) -> R:
        run = current_run.get()
        if run is None or run.in_body:
            # Called directly, outside a worker or by another actor: it belongs to that actor's body.
            return function(*args, **kwargs)
        try:
            return run.run_body(functools.partial(call, function, *args, **kwargs))
        except BaseException as error:
            if not isinstance(deciding(error), NoContentFound):
                raise
            # As out of a status context: for Dramatiq it has succeeded, so a group completes and a pipeline goes on.
            run.skip(error)
            release(error)
            return cast("R", None)

    body.is_body = True  # type: ignore[attr-defined]
    body.body = body  # type: ignore[attr-defined]
    return body


def thrown_by(actor: dramatiq.Actor[..., object]) -> tuple[type[BaseException], ...]:
    """The errors that an actor expects: Dramatiq's option `throws`."""
    throws = actor.options.get("throws") or ()
    return throws if isinstance(throws, tuple) else (throws,)


def _call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return function(*args, **kwargs)


def _call_and_settle(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    name = getattr(function, "__name__", type(function).__name__)
    return cast("R", settled(function(*args, **kwargs), run_async_in_shared_loop, name))


def delivered_run(message: Delivery) -> AttemptRun:
    """A new run of a message that our own broker has handed out."""
    proxy = cast("MessageProxy", message)
    return AttemptRun(proxy, message, number=message.attempt, fence=message.fence, queued_ms=message.queued_ms)


class Runs(dramatiq.Middleware):
    """Makes an `AttemptRun` for each message, and ends it with the attempt.

    Args:
        running: The attempts that run in this process.
        recorder: The recorder of events, or None if the broker's own messages record them.
    """

    runs_on_loop = True

    def __init__(self, running: RunningAttempts, recorder: Writer | None) -> None:
        self.running = running
        self._recorder = recorder

    @property
    def actor_options(self) -> set[str]:
        """The option of actors: `subject`, the names of the parameters that are a message's subject."""
        return {SUBJECT}

    def before_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., object]) -> None:
        """Checks the subject.

        Raises:
            BadSubject: It names something that cannot be one.
        """
        if subject := actor.options.get(SUBJECT):
            try:
                check_subject(actor.actor_name, subject, actor.fn)
            except (TypeError, ValueError) as error:
                raise BadSubject(str(error)) from error

    def after_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., object]) -> None:
        """Makes the actor's function a body."""
        actor.fn = as_body(actor.fn)
        # So neither Dramatiq's worker nor plug-ins that report errors take a cancelled attempt, or a group of expected
        # errors, for a failure.
        expected = (*thrown_by(actor), Cancelled)
        actor.options["throws"] = (*expected, groups_of(expected))

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Starts to watch the deadlines, and the interrupts of others."""
        self.running.start()
        divert_to(self.running)

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Ends the watch and the shared loop, and writes the events that still wait: no attempt runs any more."""
        self.running.stop()
        divert_no_more(self.running)
        stop_shared_loop()
        if self._recorder is not None:
            self._recorder.flush(FLUSH_TIMEOUT)

    def before_enqueue(self, broker: Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        """Adds the due time to the message; ends the attempt before a retry, which the retry could overtake."""
        if self._recorder is not None and (delay is not None or DUE not in message.options):
            message.options[DUE] = int(time.time() * 1000) + (delay or 0)
        run = current_run.get()
        if run is not None and not run.in_body and run.key[0] == message.message_id:
            error = run.message._exception  # noqa: SLF001 - where Dramatiq puts it
            self._end(run, error, f"retry in {format_duration((delay or 0) / 1000)}", "delayed")

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Begins the run.

        Raises:
            SkipMessage: Another process has the message now, or it was cancelled.
        """
        if self._recorder is None and (begun := cast("Delivery", message).run) is not None:
            begun.enter(has_thread=False)  # the loop has begun it, which must not wait here
            self._tell_delay(broker, message)
            return
        run = self._run_of(broker, message)
        # Say first, then look: docs/explanation/waking-without-a-lock.md. A cancellation says so, then looks.
        self.running.add(run)
        if self._recorder is None and not cast("Delivery", message).begin(run):
            self.running.remove(run)
            raise SkipMessage("the message has gone to another process, or was cancelled")
        run.enter()
        if self._recorder is None:
            self._tell_delay(broker, message)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Ends the run."""
        run = current_run.get()
        if run is None:
            return
        decides = deciding(exception) if exception is not None else None
        if message.failed:
            self._end(run, exception, "dead letter", "dead")
        elif isinstance(decides, Shutdown):
            self._end(run, exception, "shutdown", "queued")
        elif exception is not None and run.cancelled:
            # An error of its clean-up is recorded; the interrupt itself is not.
            error = None if isinstance(decides, Cancelled) else exception
            self._end(run, error, "on request", state=State.CANCELLED)
        else:
            self._end(run, exception)
        self._leave(run)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Ends the run of a message that another middleware has skipped: no message is skipped silently."""
        run = current_run.get()
        if run is not None:
            dead = ("dead letter", "dead") if message.failed else ()
            self._end(run, NoContentFound("skipped by a middleware"), *dead)
            self._leave(run)

    @staticmethod
    def _tell_delay(broker: Broker, message: MessageProxy) -> None:
        """Tells the middleware of a delay that is over: it passed on the server, and never in a worker's memory."""
        if message.options.pop(DUE_AT, None) is not None:
            broker.emit_before("delay_message", message)

    def _run_of(self, broker: Broker, message: MessageProxy) -> AttemptRun:
        if self._recorder is None:
            return delivered_run(cast("Delivery", message))
        message.actor_name = broker.get_actor(message.actor_name).actor_name  # it may have been sent under an old name
        due = message.options.get(DUE, message.message_timestamp)
        number = fence = int(message.options.get("retries", 0)) + int(message.options.get(WAITS, 0)) + 1
        queued_ms = max(0.0, time.time() * 1000 - due)
        return AttemptRun(message, self._recorder, number=number, fence=fence, queued_ms=queued_ms)

    def _end(
        self,
        run: AttemptRun,
        exception: BaseException | None,
        outlook: str = "",
        becomes: str | None = None,
        *,
        state: State | None = None,
    ) -> None:
        if run.has_ended:
            return
        if exception is not None and _was_asked_for(deciding(exception)):
            state = State.CANCELLED
        if exception is None and not outlook and (usual := run.usual_end()) is not None:
            cast("Delivery", run.message).end_as_usual(usual)
            return
        run.end(exception, state=state, outlook=outlook, becomes=becomes)
        if self._recorder is not None and not self._recorder.flush(FLUSH_TIMEOUT):
            logger.warning("the event that ends an attempt waits for Redis", message_id=run.attempt.message_id)

    def _leave(self, run: AttemptRun) -> None:
        self.running.remove(run)
        run.leave()


def _was_asked_for(error: BaseException) -> bool:
    """Whether somebody wanted the attempt to end: a shutdown, a person, a plug-in."""
    return isinstance(error, Interrupt) and not isinstance(error, TimeLimitExceeded)
