"""Spans: named stretches of work, each with its events. The outermost one of an attempt is the attempt's own.

Recording never fails the work.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

from worker.attempts.attempt import Attempt
from worker.errors import NoContentFound, RetryLater
from worker.ground.groups import deciding
from worker.history.events import (
    TAKEN_TEXT,
    ErrorInfo,
    Recorder,
    State,
    StatusEvent,
    Subject,
    Writer,
    said_by,
)
from worker.history.writer import default_writer
from worker.loops.account import Blocked

FLUSH_TIMEOUT = 2.0
"""Seconds that the end of a context outside a worker waits for its events to be written."""

PROGRESS_EVERY = 1.0
"""Seconds between two progress events of a context: a loop may report each step, but the history keeps only some."""

recorder_override: ContextVar[Writer | None] = ContextVar("recorder_override", default=None)
"""The recorder for contexts outside a worker, in place of the configured history; for tests."""


def _recorder_outside() -> Writer:
    override = recorder_override.get()
    return default_writer() if override is None else override


class Span:
    """A named stretch of work, with its events from STARTED to its end."""

    def __init__(self, prefix: str, text: str, subject: Subject) -> None:
        self._root: Span | None = None  # not itself: only the collector could free it
        self.run = ""
        self.number = 0
        self.id = ""  # the id of its STARTED event; the ids of its other events begin with it
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

    @property
    def root(self) -> Span:
        """The outermost span, which may be itself."""
        return self if self._root is None else self._root

    def start(
        self,
        recorder: Recorder | None,
        *,
        attempt: Attempt | None,
        root: Span | None,
        outer: Span | None,
        at: float | None = None,
        is_recorded: bool = False,
    ) -> None:
        """Begins, and records STARTED.

        Args:
            recorder: The recorder of its events, or None for the configured history.
            attempt: The attempt in which it runs, or None outside a worker.
            root: The attempt's own span, or None if this is it.
            outer: The span in which it begins, or None.
            at: The time of its begin, on the monotonic clock, or None for now.
            is_recorded: Whether STARTED was recorded before.
        """
        self._attempt = attempt
        self._recorder = recorder if recorder is not None else _recorder_outside()
        self._started_at = self._progress_at = time.monotonic()
        if root is None:
            self.run = attempt.message_id if attempt else uuid.uuid4().hex
        else:
            self._root, self.run, self.number = root, root.run, root.next_number()
        self.id = f"{self.run}:{attempt.number if attempt else 0}"
        if self.number:
            self.id = f"{self.id}/{self.number}"
        self._common = self._common_fields()
        within = outer or root
        values: dict[str, Any] = {"parent": within.id} if within is not None else {}
        if at is not None:
            values["time"] = datetime.now(UTC) - timedelta(seconds=time.monotonic() - at)
        if not is_recorded:
            self._recorder.record(self._event(State.STARTED, text=self.text[:TAKEN_TEXT], **values))
        self.text = ""

    def next_number(self) -> int:
        """The number for the next span inside."""
        self._spans += 1
        return self._spans

    def see(self, error: BaseException | None) -> None:
        """Takes the error of the work, or None: it decides the state that ends the span."""
        if error is None:
            return
        self.error = None
        decides = deciding(error)
        if isinstance(decides, NoContentFound):
            self.outcome = State.SKIPPED
            self.text = self.text or said_by(error)
            return
        self.outcome = _outcome_of(decides)
        self.error = ErrorInfo.of(error)

    def is_not_retried(self) -> None:
        """Makes it FAILED if it asked for a later time: nobody comes back to it."""
        if self.outcome is State.SNOOZED:
            self.outcome = State.FAILED

    def progress_is_due(self) -> bool:
        """Whether progress should be recorded now."""
        now = time.monotonic()
        if self._recorder is not None and now - self._progress_at < PROGRESS_EVERY:
            return False
        self._progress_at = now
        return True

    def progress(self, done: float | None, total: float | None, text: str) -> None:
        """Records progress."""
        if self._recorder is None:
            raise RuntimeError("this ProcessingStatusContext was not entered: use it with `with` or `async with`")
        self._steps += 1
        event = self._event(
            State.PROGRESS, f".{self._steps}", parent=self.id, text=text[:TAKEN_TEXT], done=done, total=total
        )
        self._recorder.record(event)

    def end(self) -> None:
        """Records the end of a span inside, or of a run outside a worker."""
        if self._recorder is None:
            return
        if self.root is self:
            self.is_not_retried()
        event = self.ending((time.monotonic() - self._started_at) * 1000, None)
        if self.root is self:
            self._recorder.record_end(event, message_state(event.state))
        else:
            self._recorder.record(event)

    def ending(self, duration_ms: float, blocked: Blocked | None) -> StatusEvent:
        """The event that ends it."""
        values: dict[str, Any] = {"duration_ms": duration_ms}
        if blocked is not None and blocked.seconds:
            began = time.monotonic() - duration_ms / 1000
            values |= {
                "blocked_ms": blocked.seconds * 1000,
                "blocked_at": blocked.where,
                "longest_block_ms": blocked.worst * 1000,
                "longest_block_from_ms": max(0.0, blocked.began - began) * 1000,
            }
        return self._event(
            self.outcome, ".end", parent=self.id, text=self.text[:TAKEN_TEXT], error=self.error, **values
        )

    def flush(self) -> None:
        """Waits until the events of a run outside a worker are written."""
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


def _outcome_of(error: BaseException) -> State:
    if isinstance(error, RetryLater):
        return State.SNOOZED
    return State.CANCELLED if isinstance(error, asyncio.CancelledError) else State.FAILED


def message_state(state: State) -> str:
    """The state of a message after an attempt that ended in this state."""
    return "dead" if state is State.FAILED else state._value_


current_span: ContextVar[Span | None] = ContextVar("current_span", default=None)
