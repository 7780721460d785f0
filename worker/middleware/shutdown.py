"""The interrupt of attempts at a shutdown, for actors that ask for it: the place of Dramatiq's `ShutdownNotifications`.

Like the time limit it reaches coroutines through their loop.
"""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.shutdown import Shutdown

from worker.interrupts import Deadlines, interruptible


class ShutdownNotifications(dramatiq.Middleware):
    """Interrupts attempts, with Dramatiq's `Shutdown`, when their worker is told to end.

    Only those of actors and messages with the option `notify_shutdown`; the others are waited for.
    """

    def __init__(self) -> None:
        self._interrupts = Deadlines("shutdown-interrupts")
        self._running: set[int] = set()

    @property
    def actor_options(self) -> set[str]:
        """The option of actors and messages: `notify_shutdown`."""
        return {"notify_shutdown"}

    def after_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., Any]) -> None:
        """Makes the actor's body a section that can be interrupted."""
        actor.fn = interruptible(actor.fn)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Notes that this thread's attempt is to be interrupted."""
        option = message.options.get("notify_shutdown")
        if option is None:
            option = broker.get_actor(message.actor_name).options.get("notify_shutdown")
        if option:
            self._running.add(threading.get_ident())

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Forgets it."""
        self._running.discard(threading.get_ident())
        self._interrupts.cancel()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Forgets it."""
        self._running.discard(threading.get_ident())
        self._interrupts.cancel()

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Interrupts the attempts that run."""
        self._interrupts.start()
        for thread_id in list(self._running):
            self._interrupts.bring_forward(thread_id, Shutdown)

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Ends: no attempt runs any more."""
        self._interrupts.stop()
