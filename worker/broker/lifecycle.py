"""Begins and ends the broker's session with its Dramatiq worker."""

from __future__ import annotations

import dramatiq
from dramatiq.broker import Broker

from worker.attempts.loop_body import loop_body
from worker.attempts.running import RunningAttempts
from worker.broker.farewell import EndSignals
from worker.broker.loop_hooks import strangers_to_the_loop
from worker.broker.loop_runner import LoopRunner
from worker.broker.runners import CONCURRENCY
from worker.broker.streams import StreamBroker
from worker.broker.taken import TakenMessage
from worker.broker.work_queue import WorkQueue
from worker.ground.logs import get_logger
from worker.server.keys import LOOP, THREAD, runner_of_actor
from worker.threads.os_threads import GEVENT

logger = get_logger(__name__)


class Lifecycle(dramatiq.Middleware):
    """Ties a Dramatiq worker to the session of its `StreamBroker`.

    Args:
        running: The attempts that run in this process.
        concurrency: The most attempts of async actors at once.
    """

    runs_on_loop = True

    @property
    def actor_options(self) -> set[str]:
        """The option of actors: `concurrency`."""
        return {CONCURRENCY}

    def __init__(self, running: RunningAttempts, concurrency: int) -> None:
        self._running = running
        self._concurrency = concurrency
        self._signals: EndSignals | None = None

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Gives the worker our queue before its threads begin, and the broker the worker's runners."""
        waiting: WorkQueue[TakenMessage] = WorkQueue(worker.worker_threads)
        worker.work_queue = waiting  # type: ignore[assignment]
        streams = _streams(broker)
        on_loop = self._runners_on_loop(broker) if self._has_loop(broker) else {}
        # The worker waits for their attempts, too, when it stops.
        worker.workers.extend(on_loop.values())  # type: ignore[arg-type]
        streams.prepare({THREAD: waiting, **on_loop})
        self._signals = EndSignals(streams.tell_end, lambda: streams.has_told_end)
        self._signals.hear()

    def _runners_on_loop(self, broker: Broker) -> dict[str, LoopRunner]:
        """The loop's runner, and one for each actor with a number of attempts of its own."""
        sizes = {LOOP: self._concurrency}
        for actor in broker.actors.values():
            if loop_body(actor) is not None and CONCURRENCY in actor.options:
                sizes[runner_of_actor(actor.actor_name)] = actor.options[CONCURRENCY]
        return {runner: LoopRunner(broker, self._running, size) for runner, size in sizes.items()}

    def _has_loop(self, broker: Broker) -> bool:
        """Whether async actors run on the loop; else each attempt takes a thread."""
        # Under gevent a waiting attempt takes a greenlet, which costs little.
        if GEVENT or all(loop_body(actor) is None for actor in broker.actors.values()):
            return False
        strangers = strangers_to_the_loop(broker)
        if strangers:
            logger.warning(
                "each attempt of an async actor takes a thread: a middleware might block the loop that all share",
                middleware=strangers,
                remedy="set runs_on_loop = True in its class if none of its hooks blocks",
            )
        return not strangers

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
