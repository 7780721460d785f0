"""What a worker does with the broker at its start and at its end."""

from __future__ import annotations

import dramatiq
from dramatiq.broker import Broker

from worker.broker.streams import StreamBroker
from worker.broker.taken import TakenMessage
from worker.broker.work_queue import WorkQueue


class Lifecycle(dramatiq.Middleware):
    """Ties a Dramatiq worker to the session of its `StreamBroker`."""

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Tells of the worker, and gives it a queue of ours before its threads begin."""
        waiting: WorkQueue[TakenMessage] = WorkQueue(worker.worker_threads)
        worker.work_queue = waiting  # type: ignore[assignment]
        _streams(broker).prepare(waiting)

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Takes nothing more, and gives back at once what no thread has begun."""
        session = _streams(broker).session
        if session is not None:
            session.stop_taking()
        if isinstance(worker.work_queue, WorkQueue):
            worker.work_queue.close()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Stores what is to be stored, and gives the lease up."""
        _streams(broker).end_session()


def _streams(broker: Broker) -> StreamBroker:
    if not isinstance(broker, StreamBroker):
        raise TypeError(f"this middleware belongs to a StreamBroker, not to {broker!r}")
    return broker
