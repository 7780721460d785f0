"""The time limit of an attempt, which reaches coroutines: the place of Dramatiq's `TimeLimit`.

An async service is cancelled through its loop and cleans up; a plain sync actor is interrupted as Dramatiq does.
"""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import TimeLimitExceeded

from worker.loops.interrupts import Deadlines, interruptible


class TimeLimit(dramatiq.Middleware):
    """Interrupts an attempt that takes too long, with Dramatiq's `TimeLimitExceeded`.

    Args:
        time_limit_ms: For actors that set no `time_limit` of their own; milliseconds, as at Dramatiq's door.
    """

    def __init__(self, time_limit_ms: float) -> None:
        self._time_limit_ms = time_limit_ms
        self._deadlines = Deadlines("time-limits")

    @property
    def actor_options(self) -> set[str]:
        """The option of actors and messages: `time_limit`, in milliseconds."""
        return {"time_limit"}

    def after_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., Any]) -> None:
        """Makes the actor's body a section that can be interrupted."""
        actor.fn = interruptible(actor.fn)

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Starts to watch."""
        self._deadlines.start()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Ends the watch: no attempt runs any more."""
        self._deadlines.stop()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Sets the attempt's limit."""
        options = broker.get_actor(message.actor_name).options
        limit = message.options.get("time_limit") or options.get("time_limit", self._time_limit_ms)
        if limit != float("inf"):
            self._deadlines.set(limit / 1000, TimeLimitExceeded)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Lifts it."""
        self._deadlines.cancel()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Lifts it."""
        self._deadlines.cancel()
