"""The attempt that runs now: what a service may ask about the message it works for."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a message.

    Attributes:
        message_id: The message's id, the same through all of its attempts.
        actor: The actor's name.
        queue: The queue it came from.
        number: 1 for the first attempt, one more for each further one.
        fence: Grows with every delivery of the message: what a service writes elsewhere under the condition that no
            greater fence was seen there cannot be undone by an older attempt that is still running somewhere.
        queued_ms: Milliseconds between the time it was due and its start.
    """

    message_id: str
    actor: str
    queue: str
    number: int
    fence: int
    queued_ms: float


running_attempt: ContextVar[Attempt | None] = ContextVar("running_attempt", default=None)


def current_attempt() -> Attempt | None:
    """The attempt in which this code runs, also inside the bridge and the thread pool; `None` outside a worker."""
    return running_attempt.get()
