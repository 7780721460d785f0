"""Begins and ends the broker's session with its Dramatiq worker."""

from __future__ import annotations

import dramatiq
from dramatiq.broker import Broker

from worker.broker.farewell import EndSignals
from worker.broker.streams import StreamBroker
from worker.broker.taken import TakenMessage
from worker.broker.work_queue import WorkQueue


class Lifecycle(dramatiq.Middleware):
    """Ties a Dramatiq worker to the session of its `StreamBroker`."""

    def __init__(self) -> None:
        self._signals: EndSignals | None = None

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Gives the worker our queue before its threads begin, and gives that queue to the broker."""
        waiting: WorkQueue[TakenMessage] = WorkQueue(worker.worker_threads)
        worker.work_queue = waiting  # type: ignore[assignment]
        streams = _streams(broker)
        streams.prepare(waiting)
        self._signals = EndSignals(streams.tell_end, lambda: streams.has_told_end)
        self._signals.hear()

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Stops taking messages, and gives back at once those that no thread has begun."""
        session = _streams(broker).session
        if session is not None:
            session.stop_taking()
        if isinstance(worker.work_queue, WorkQueue):
            worker.work_queue.close()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Stores the waiting commits, and releases the lease."""
        _streams(broker).end_session()
        if self._signals is not None:
            self._signals.stop()


def _streams(broker: Broker) -> StreamBroker:
    if not isinstance(broker, StreamBroker):
        raise TypeError(f"this middleware belongs to a StreamBroker, not to {broker!r}")
    return broker
