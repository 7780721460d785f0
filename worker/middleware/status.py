"""Owns the events of each attempt: begins its record, and writes how it ended just before it is acknowledged.

Must never fail or hold up a message: the history records the outcome and does not decide it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.shutdown import Shutdown
from structlog.contextvars import bind_contextvars, unbind_contextvars

from worker.attempt import Attempt, running_attempt
from worker.durations import format_duration
from worker.errors import NoContentFound
from worker.history.events import Recorder, State
from worker.logs import get_logger
from worker.status import AttemptRecord, current_record

logger = get_logger(__name__)

DUE = "due_ms"
"""The message's option that says when it was or will be due, in milliseconds since the epoch."""

WRITE_TIMEOUT = 5.0
"""Seconds that an acknowledgement waits for the event before it, when Redis does not answer."""

_LOG_FIELDS = ("message_id", "actor", "attempt")


class Status(dramatiq.Middleware):
    """Records the events of every attempt.

    Args:
        recorder: Where to.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def before_enqueue(self, broker: Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        """Notes when the message is due; a retry ends the record of the attempt before it, which it may overtake."""
        if delay is not None or DUE not in message.options:
            message.options[DUE] = int(time.time() * 1000) + (delay or 0)
        record = current_record()
        if record is not None and record.attempt.message_id == message.message_id:
            self._end(record, sys.exception(), f"retry in {format_duration((delay or 0) / 1000)}")

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Begins the attempt's record."""
        due = message.options.get(DUE, message.message_timestamp)
        attempt = Attempt(
            message_id=message.message_id,
            actor=message.actor_name,
            queue=message.queue_name,
            number=int(message.options.get("retries", 0)) + 1,
            queued_ms=max(0.0, time.time() * 1000 - due),
        )
        running_attempt.set(attempt)
        bind_contextvars(message_id=attempt.message_id, actor=attempt.actor, attempt=attempt.number)
        AttemptRecord(attempt, self._recorder)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Writes how the attempt ended."""
        record = current_record()
        if record is not None:
            self._end(record, exception, "dead letter" if message.failed else "")

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Writes that another middleware had the message skipped: nothing here skips silently."""
        record = current_record()
        if record is not None:
            self._end(record, NoContentFound("skipped by a middleware"), "dead letter" if message.failed else "")

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Writes what still waits."""
        self._recorder.flush(WRITE_TIMEOUT)

    def _end(self, record: AttemptRecord, exception: BaseException | None, outlook: str) -> None:
        record.end(exception, state=State.CANCELLED if isinstance(exception, Shutdown) else None, outlook=outlook)
        running_attempt.set(None)
        unbind_contextvars(*_LOG_FIELDS)
        if not self._recorder.flush(WRITE_TIMEOUT):
            logger.warning("the event that ends an attempt waits for Redis", message_id=record.attempt.message_id)
