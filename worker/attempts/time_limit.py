"""The time limit of an attempt, which also reaches coroutines, in place of Dramatiq's `TimeLimit`."""

from __future__ import annotations

from math import inf

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import TimeLimitExceeded

from worker.attempts.run import current_run
from worker.attempts.running import RunningAttempts


class TimeLimit(dramatiq.Middleware):
    """Interrupts an attempt that takes too long, with Dramatiq's `TimeLimitExceeded`.

    Args:
        running: The attempts that run in this process.
        time_limit_ms: The limit for actors without a `time_limit` of their own, in milliseconds, as in Dramatiq.
    """

    runs_on_loop = True

    def __init__(self, running: RunningAttempts, time_limit_ms: float) -> None:
        self._running = running
        self._time_limit_ms = time_limit_ms

    def with_limit(self, time_limit_ms: float) -> TimeLimit:
        """The same with another limit."""
        return TimeLimit(self._running, time_limit_ms)

    @property
    def actor_options(self) -> set[str]:
        """The option of actors and messages: `time_limit`, in milliseconds."""
        return {"time_limit"}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Sets the attempt's limit."""
        options = broker.get_actor(message.actor_name).options
        limit = message.options.get("time_limit") or options.get("time_limit", self._time_limit_ms)
        run = current_run.get()
        if run is not None and limit != inf:
            self._running.limit(run, limit / 1000, TimeLimitExceeded)
