"""The interrupt of attempts at a shutdown, in place of Dramatiq's `ShutdownNotifications`.

Like the time limit, it reaches coroutines through their loop.
"""

from __future__ import annotations

import time

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.shutdown import Shutdown

from worker.attempts.run import AttemptRun, current_run
from worker.attempts.running import RunningAttempts


class ShutdownNotifications(dramatiq.Middleware):
    """Interrupts attempts, with Dramatiq's `Shutdown`, when their worker is told to end.

    Attempts with the option `notify_shutdown` are interrupted at once, the others after the grace period.

    Args:
        running: The attempts that run in this process.
        grace: Seconds of the grace period, or None if the other attempts are never interrupted.
        at_once: The value of `notify_shutdown` for attempts without one.
    """

    runs_on_loop = True

    def __init__(self, running: RunningAttempts, grace: float | None = None, *, at_once: bool = False) -> None:
        self._running = running
        self._grace = grace
        self._at_once = at_once
        self._told_at: float | None = None

    def with_notice(self, *, at_once: bool) -> ShutdownNotifications:
        """The same with another value of `notify_shutdown` for attempts without one."""
        return ShutdownNotifications(self._running, self._grace, at_once=at_once)

    @property
    def actor_options(self) -> set[str]:
        """The option of actors and messages: `notify_shutdown`."""
        return {"notify_shutdown"}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Sets the deadline of an attempt that began after the worker was told to end."""
        run = current_run.get()
        # The run was added first (docs/explanation/waking-without-a-lock.md); a shutdown says so, then looks for runs.
        if run is not None and self._told_at is not None:
            self._limit(broker, run, self._told_at)

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Sets the deadlines of the running attempts."""
        self._told_at = told_at = time.monotonic()
        for run in self._running:
            self._limit(broker, run, told_at)

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Forgets the shutdown, after all attempts have ended."""
        self._told_at = None

    def _limit(self, broker: Broker, run: AttemptRun, told_at: float) -> None:
        at_once = run.message.options.get("notify_shutdown")
        if at_once is None:
            at_once = broker.get_actor(run.message.actor_name).options.get("notify_shutdown", self._at_once)
        if at_once:
            self._running.limit(run, 0.0, Shutdown)
        elif self._grace is not None:
            self._running.limit(run, told_at + self._grace - time.monotonic(), Shutdown)
