"""What a worker does with the broker at its start, at its end, and before each attempt."""

from __future__ import annotations

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import SkipMessage

from worker.broker.streams import StreamBroker
from worker.broker.taken import TakenMessage
from worker.broker.work_queue import WorkQueue


class Lifecycle(dramatiq.Middleware):
    """Ties a Dramatiq worker to the session of its `StreamBroker`."""

    def __init__(self) -> None:
        self._work_queue = WorkQueue()

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Tells of the worker, and gives it a queue of ours before its threads begin."""
        self._work_queue = WorkQueue()
        worker.work_queue = self._work_queue  # type: ignore[assignment]
        _streams(broker).prepare(worker)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Begins the attempt, unless the message has meanwhile gone to another process.

        Raises:
            SkipMessage: It has.
        """
        session = _streams(broker).session
        if isinstance(message, TakenMessage) and (session is None or not session.begin(message)):
            raise SkipMessage("the message has gone to another process")

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Takes nothing more, and gives back at once what no thread has begun."""
        session = _streams(broker).session
        if session is not None:
            session.stop_taking()
        self._work_queue.close(worker.worker_threads)

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Stores what is to be stored, and gives the lease up."""
        _streams(broker).end_session()


def _streams(broker: Broker) -> StreamBroker:
    if not isinstance(broker, StreamBroker):
        raise TypeError(f"this middleware belongs to a StreamBroker, not to {broker!r}")
    return broker
