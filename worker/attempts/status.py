"""Owns the events of each attempt: begins its record, and hands over how it ended just before it is acknowledged.

Must never fail or hold up a message: the history records the outcome and does not decide it.
"""

from __future__ import annotations

import sys
import time
from typing import Any, cast

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.shutdown import Shutdown
from structlog.contextvars import bind_contextvars, unbind_contextvars

from worker.attempts.attempt import Attempt, running_attempt
from worker.attempts.cancellation import Cancelled, is_cancelled
from worker.attempts.record import AttemptRecord, current_record
from worker.errors import NoContentFound
from worker.ground.durations import format_duration
from worker.ground.logs import get_logger
from worker.history.events import Recorder, State, Writer

logger = get_logger(__name__)

DUE = "due_ms"
"""The option of messages on a broker that does not know when one was or will be due; milliseconds since the epoch."""

FLUSH_TIMEOUT = 5.0
"""Seconds that an acknowledgement waits for the event before it, where the broker does not keep both together."""

_LOG_FIELDS = ("message_id", "actor", "attempt")


class Status(dramatiq.Middleware):
    """Records the events of every attempt.

    Args:
        recorder: Where to; `None`: the broker keeps them itself.
    """

    def __init__(self, recorder: Writer | None) -> None:
        self._recorder = recorder

    def before_enqueue(self, broker: Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        """Notes when the message is due; a retry ends the record of the attempt before it, which it may overtake."""
        if self._recorder is not None and (delay is not None or DUE not in message.options):
            message.options[DUE] = int(time.time() * 1000) + (delay or 0)
        record = current_record()
        if record is not None and record.attempt.message_id == message.message_id:
            self._end(record, sys.exception(), f"retry in {format_duration((delay or 0) / 1000)}", "delayed")

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Begins the attempt's record."""
        if self._recorder is not None:
            due = message.options.get(DUE, message.message_timestamp)
            number = fence = int(message.options.get("retries", 0)) + 1
            queued_ms = max(0.0, time.time() * 1000 - due)
        else:
            number, fence, queued_ms = message.attempt, message.fence, message.queued_ms
        attempt = Attempt(message.message_id, message.actor_name, message.queue_name, number, fence, queued_ms)
        running_attempt.set(attempt)
        bind_contextvars(message_id=attempt.message_id, actor=attempt.actor, attempt=attempt.number)
        # Not `or`: a recorder that has recorded nothing yet may be empty, and false.
        AttemptRecord(attempt, cast("Recorder", broker) if self._recorder is None else self._recorder)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Hands over how the attempt ended."""
        record = current_record()
        if record is None:
            return
        if message.failed:
            self._end(record, exception, "dead letter", "dead")
        elif isinstance(exception, Shutdown):
            self._end(record, exception, "shutdown", "queued")
        elif exception is not None and is_cancelled(message):
            # What its clean-up raised is told; the interrupt itself says nothing.
            error = None if isinstance(exception, Cancelled) else exception
            self._end(record, error, "on request", state=State.CANCELLED)
        else:
            self._end(record, exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Hands over that another middleware had the message skipped: nothing here skips silently."""
        record = current_record()
        if record is not None:
            dead = ("dead letter", "dead") if message.failed else ()
            self._end(record, NoContentFound("skipped by a middleware"), *dead)

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Writes what still waits."""
        if self._recorder is not None:
            self._recorder.flush(FLUSH_TIMEOUT)

    def _end(
        self,
        record: AttemptRecord,
        exception: BaseException | None,
        outlook: str = "",
        becomes: str | None = None,
        *,
        state: State | None = None,
    ) -> None:
        state = State.CANCELLED if isinstance(exception, Shutdown) else state
        record.end(exception, state=state, outlook=outlook, becomes=becomes)
        running_attempt.set(None)
        unbind_contextvars(*_LOG_FIELDS)
        if self._recorder is not None and not self._recorder.flush(FLUSH_TIMEOUT):
            logger.warning("the event that ends an attempt waits for Redis", message_id=record.attempt.message_id)
