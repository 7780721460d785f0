"""The attempt as a service sees it: facts that it can read but not change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a message.

    Attributes:
        message_id: The message's id, the same through all of its attempts.
        actor: The actor's name.
        queue: The queue of the message.
        number: 1 for the first attempt, one more for each further one.
        fence: A number that grows with every delivery of the message. If a service stores it with its writes, and
            writes only if no greater fence is stored, an older attempt that still runs cannot undo a newer one.
        queued_ms: Milliseconds between the time the message was due and the start of the attempt.
    """

    message_id: str
    actor: str
    queue: str
    number: int
    fence: int
    queued_ms: float
