"""The interrupt of attempts at a shutdown: the place of Dramatiq's `ShutdownNotifications`.

Like the time limit it reaches coroutines through their loop.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.shutdown import Shutdown

from worker.loops.interrupts import Deadlines, interruptible


class ShutdownNotifications(dramatiq.Middleware):
    """Interrupts attempts, with Dramatiq's `Shutdown`, when their worker is told to end.

    Those of actors and messages with the option `notify_shutdown` at once, the others when the grace period is over.

    Args:
        grace: Seconds; `None`: the others are waited for.
    """

    def __init__(self, grace: float | None = None) -> None:
        self._grace = grace
        self._interrupts = Deadlines("shutdown-interrupts")
        self._running: dict[int, bool] = {}
        self._told_at: float | None = None

    @property
    def actor_options(self) -> set[str]:
        """The option of actors and messages: `notify_shutdown`."""
        return {"notify_shutdown"}

    def after_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., Any]) -> None:
        """Makes the actor's body a section that can be interrupted."""
        actor.fn = interruptible(actor.fn)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Notes this thread's attempt."""
        option = message.options.get("notify_shutdown")
        if option is None:
            option = broker.get_actor(message.actor_name).options.get("notify_shutdown")
        thread_id = threading.get_ident()
        self._running[thread_id] = bool(option)
        if self._told_at is not None:
            # It was on its way to this thread when the worker was told.
            self._set_deadline(thread_id, at_once=bool(option))

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Forgets it."""
        self._running.pop(threading.get_ident(), None)
        self._interrupts.cancel()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Forgets it."""
        self._running.pop(threading.get_ident(), None)
        self._interrupts.cancel()

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Sets the deadlines of the attempts that run."""
        self._told_at = time.monotonic()
        self._interrupts.start()
        for thread_id, at_once in list(self._running.items()):
            self._set_deadline(thread_id, at_once=at_once)

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Ends: no attempt runs any more."""
        self._told_at = None
        self._interrupts.stop()

    def _set_deadline(self, thread_id: int, *, at_once: bool) -> None:
        if at_once:
            self._interrupts.set_for(thread_id, 0.0, Shutdown)
        elif self._grace is not None and self._told_at is not None:
            self._interrupts.set_for(thread_id, self._told_at + self._grace - time.monotonic(), Shutdown)
