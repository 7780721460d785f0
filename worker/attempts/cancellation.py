"""Cancels attempts that somebody wants to end: a coroutine through its loop, a sync actor as by its time limit."""

from __future__ import annotations

import threading
import time

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.threading import Interrupt

from worker.loops.interrupts import RETRY_EVERY, interruptible, section_of


class Cancelled(Interrupt):
    """Somebody wanted the attempt to end: CANCELLED, acknowledged and not retried."""


def is_cancelled(message: MessageProxy) -> bool:
    """Whether somebody wanted this delivery of the message to end, and its process has heard of it."""
    return bool(getattr(message, "cancelled", False))


class Cancellation(dramatiq.Middleware):
    """Knows which thread runs which message, and interrupts it on request."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}

    def after_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., object]) -> None:
        """Makes the actor's body a section that can be interrupted."""
        actor.fn = interruptible(actor.fn)
        # Dramatiq's worker then logs a line, and no traceback as of an error.
        expected = actor.options.get("throws") or ()
        actor.options["throws"] = (*(expected if isinstance(expected, tuple) else (expected,)), Cancelled)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Notes this thread's attempt."""
        self._running[message.message_id] = threading.get_ident()
        if is_cancelled(message):
            # It was on its way here. Noted before looking: who cancels it says so before looking who runs it.
            self.cancel(message.message_id)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Forgets it."""
        self._running.pop(message.message_id, None)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Forgets it."""
        self._running.pop(message.message_id, None)

    def cancel(self, message_id: str) -> None:
        """Interrupts the message's attempt, if it runs here; as soon as the actor's body has begun."""
        if not self._interrupt(message_id):
            threading.Thread(target=self._insist, args=(message_id,), name="cancellation", daemon=True).start()

    def _insist(self, message_id: str) -> None:
        while not self._interrupt(message_id):
            time.sleep(RETRY_EVERY)

    def _interrupt(self, message_id: str) -> bool:
        """False if it runs here, and its body has not begun or has just ended."""
        thread_id = self._running.get(message_id)
        if thread_id is None:
            return True
        section = section_of(thread_id)
        if section is None:
            return False
        # Only if the thread still has this message was the section that of its attempt.
        if self._running.get(message_id) == thread_id:
            section.interrupt(Cancelled())
        return True
