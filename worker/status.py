"""`ProcessingStatusContext`: records what happens to an attempt, or to a span inside it.

An attempt has one set of events. Inside a worker the middleware owns it (`AttemptRecord`): the outermost context gives
it name, subject and text, and the event that ends it is written when Dramatiq has the outcome, since an error
that escapes after the context is what counts. Contexts inside it are spans, with events of their own.
Recording never fails the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from worker.attempt import Attempt, blocked_time, unfinished_calls
from worker.errors import NoContentFound
from worker.history.events import (
    MAX_TEXT,
    ErrorInfo,
    Recorder,
    State,
    StatusEvent,
    Subject,
    SubjectValue,
    Writer,
    said_by,
)
from worker.history.writer import default_writer
from worker.watchdog import Blocked

__all__ = ["AttemptRecord", "ProcessingStatusContext", "State", "StatusEvent", "recorder_override"]

FLUSH_TIMEOUT = 2.0
"""Seconds that the end of a context outside a worker waits for its events to be written."""

PROGRESS_EVERY = 1.0
"""Seconds between two progress events of a context: a loop may report each step, the history need not keep them all."""

recorder_override: ContextVar[Writer | None] = ContextVar("recorder_override", default=None)
"""Where contexts outside a worker record, instead of in the configured history; for tests."""


def _recorder_outside() -> Writer:
    override = recorder_override.get()
    return default_writer() if override is None else override


class _Span:
    """A named stretch of work: its events, from STARTED to the one that ends it."""

    def __init__(self, prefix: str, text: str, subject: Subject) -> None:
        self.root: _Span = self
        self.run = ""
        self.number = 0
        self.id = ""  # of its STARTED event; those of its others begin with it
        self._common: dict[str, Any] = {}
        self.prefix = prefix
        self.subject = subject
        self.text = text
        self.outcome = State.COMPLETED
        self.error: ErrorInfo | None = None
        self._steps = 0
        self._spans = 0
        self._started_at = self._progress_at = time.monotonic()
        self._attempt: Attempt | None = None
        self._recorder: Recorder | None = None

    def start(self, record: AttemptRecord | None, outer: _Span | None, at: float | None = None) -> None:
        self._attempt = record.attempt if record else None
        self._recorder = record.recorder if record is not None else _recorder_outside()
        self._started_at = self._progress_at = time.monotonic()
        root = record.span if record is not None else outer.root if outer is not None else None
        if root is None or root is self:
            self.run = self._attempt.message_id if self._attempt else uuid.uuid4().hex
        else:
            self.root, self.run, self.number = root, root.run, root.next_number()
        self.id = f"{self.run}:{self._attempt.number if self._attempt else 0}"
        if self.number:
            self.id = f"{self.id}/{self.number}"
        self._common = self._common_fields()
        within = outer or (self.root if self.root is not self else None)
        values: dict[str, Any] = {"parent": within.id} if within is not None else {}
        if at is not None:
            values["time"] = datetime.now(UTC) - timedelta(seconds=time.monotonic() - at)
        self._recorder.record(self._event(State.STARTED, text=self.text[:MAX_TEXT], **values))
        self.text = ""

    def next_number(self) -> int:
        """The number of a span inside."""
        self._spans += 1
        return self._spans

    def note(self, error: BaseException | None) -> None:
        """Notes how the work went, with the error that came out of it."""
        if error is None:
            return
        self.error = None
        if isinstance(error, NoContentFound):
            self.outcome = State.SKIPPED
            self.text = self.text or said_by(error)
            return
        self.outcome = State.CANCELLED if isinstance(error, asyncio.CancelledError) else State.FAILED
        self.error = ErrorInfo.of(error)

    def progress_is_due(self) -> bool:
        now = time.monotonic()
        if self._recorder is not None and now - self._progress_at < PROGRESS_EVERY:
            return False
        self._progress_at = now
        return True

    def progress(self, done: float, total: float | None, text: str) -> None:
        if self._recorder is None:
            raise RuntimeError("this ProcessingStatusContext was not entered: use it with `with` or `async with`")
        self._steps += 1
        event = self._event(
            State.PROGRESS, f".{self._steps}", parent=self.id, text=text[:MAX_TEXT], done=done, total=total
        )
        self._recorder.record(event)

    def end(self, *, becomes: str | None = None) -> None:
        """Records the end of a span inside, or of a run outside a worker."""
        if self._recorder is None:
            return
        event = self._ending((time.monotonic() - self._started_at) * 1000, Blocked())
        if self.root is self:
            self._recorder.record_end(event, becomes or message_state(event.state))
        else:
            self._recorder.record(event)

    def end_attempt(self, started_at: float, blocked: Blocked, becomes: str | None) -> None:
        """Records the end of the attempt."""
        event = self._ending((time.monotonic() - started_at) * 1000, blocked)
        if self._recorder is not None:
            self._recorder.record_end(event, becomes or message_state(event.state))

    def _ending(self, duration_ms: float, blocked: Blocked) -> StatusEvent:
        values: dict[str, Any] = {"duration_ms": duration_ms}
        if blocked.seconds:
            values |= {"blocked_ms": blocked.seconds * 1000, "blocked_at": blocked.where}
        return self._event(self.outcome, ".end", parent=self.id, text=self.text[:MAX_TEXT], error=self.error, **values)

    def flush(self) -> None:
        """Waits until what a run outside a worker recorded is written."""
        _recorder_outside().flush(FLUSH_TIMEOUT)

    def _common_fields(self) -> dict[str, Any]:
        attempt = self._attempt
        if attempt is None:
            return {"subject": self.subject}
        return {
            "subject": self.subject,
            "actor": attempt.actor,
            "queue": attempt.queue,
            "message_id": attempt.message_id,
            "attempt": attempt.number,
            "queued_ms": attempt.queued_ms,
        }

    def _event(self, state: State, suffix: str = "", **values: Any) -> StatusEvent:  # noqa: ANN401 - its fields
        return StatusEvent(event=f"{self.prefix}.{state}", state=state, id=self.id + suffix, **self._common, **values)


def message_state(state: State) -> str:
    """The state of a message whose only attempt ended so."""
    return "dead" if state is State.FAILED else state.value


_current: ContextVar[_Span | None] = ContextVar("current_span", default=None)
_record: ContextVar[AttemptRecord | None] = ContextVar("attempt_record", default=None)


class AttemptRecord:
    """The one set of events of an attempt; made, ended and owned by the middleware."""

    def __init__(self, attempt: Attempt, recorder: Recorder) -> None:
        self.attempt = attempt
        self.recorder = recorder
        self.span: _Span | None = None
        self._started_at = time.monotonic()
        self._blocked = Blocked()
        self._tokens = _record.set(self), blocked_time.set(self._blocked), unfinished_calls.set([])

    def end(
        self,
        error: BaseException | None,
        *,
        state: State | None = None,
        outlook: str = "",
        becomes: str | None = None,
    ) -> None:
        """Records how the attempt ended: with `error`, else as its outermost context said, else COMPLETED.

        Args:
            error: What escaped from the actor.
            state: The state, where the error alone does not tell it.
            outlook: What happens to the message now, for people.
            becomes: The state it has then; `None`: that of the attempt.
        """
        _record.reset(self._tokens[0])
        blocked_time.reset(self._tokens[1])
        unfinished_calls.reset(self._tokens[2])
        if self.span is None:
            # An actor without a context has its name and nothing else.
            self.span = _Span(self.attempt.actor, "", {})
            self.span.start(self, None, self._started_at)
        span = self.span
        if error is None and span.outcome is State.FAILED:
            # The actor handled the error that its context saw: the message is acknowledged.
            span.outcome = State.COMPLETED
        span.note(error)
        if error is None and state is not None:
            span.error = None  # what its context saw was the interrupt
        span.outcome = state or span.outcome
        span.text = "; ".join(part for part in (span.text, outlook) if part)
        span.end_attempt(self._started_at, self._blocked, becomes)


def current_record() -> AttemptRecord | None:
    """The record of the attempt that runs in this context; for the middleware."""
    return _record.get()


class ProcessingStatusContext:
    """Records STARTED on entry, and on exit COMPLETED, SKIPPED or FAILED; for `with` and `async with`.

    `NoContentFound` that comes out is SKIPPED and swallowed, so that the message is acknowledged and not retried;
    any other error is FAILED, with type, text and traceback, and passes on, so that Dramatiq retries. A context
    inside another is a span of it: it records the same, and lets every error pass. Outside a worker
    (a script, a test) it works too, without the message's fields.

    Args:
        event_prefix: What the events are called: `<event_prefix>.started` and so on.
        message: A text for the STARTED event.
        subject: What the work is about, such as `conversation_id=…`; values are plain JSON values.
    """

    def __init__(self, event_prefix: str, message: str = "", **subject: SubjectValue) -> None:
        if not event_prefix:
            raise ValueError("event_prefix is empty: name the work, such as 'merge_conversation'")
        self._span = _Span(event_prefix, message, subject)
        self._outer: _Span | None = None
        self._record: AttemptRecord | None = None
        self._token: Token[_Span | None] | None = None

    def set_exit_message(self, text: str) -> None:
        """The text of the event that ends this context."""
        self._span.text = text

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Records a progress event: so much done, of so much in all where that is known.

        Call it as often as you like: one a second is recorded, the first a second after the start.

        Raises:
            RuntimeError: The context was not entered.
        """
        if self._span.progress_is_due():
            self._span.progress(done, total, text)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("this ProcessingStatusContext was entered before: make a new one for each use")
        self._outer, self._record = _current.get(), _record.get()
        if self._record is not None and self._record.span is None:
            self._record.span = self._span
        self._span.start(self._record, self._outer)
        self._token = _current.set(self._span)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if self._token is not None:
            # Entered in another context (a generator that its loop closes, a dependency in a thread pool) there is
            # nothing to put back here.
            with contextlib.suppress(ValueError):
                _current.reset(self._token)
        self._span.note(error)
        owns_the_attempt = self._record is not None and self._record.span is self._span
        if not owns_the_attempt:
            self._span.end()
        if self._record is None and self._outer is None and not _in_running_loop():
            self._span.flush()
        return isinstance(error, NoContentFound) and self._outer is None

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, trace)


def _in_running_loop() -> bool:
    # There, waiting for the history would block the loop.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
