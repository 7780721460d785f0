"""What a service may ask about the message it works for: facts, and nothing that it could change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a message.

    Attributes:
        message_id: The message's id, the same through all of its attempts.
        actor: The actor's name.
        queue: The queue it came from.
        number: 1 for the first attempt, one more for each further one.
        fence: Grows with every delivery of the message. What a service writes elsewhere under the condition that no
            greater fence was seen there cannot be undone by an older attempt that is still running somewhere.
        queued_ms: Milliseconds between the time it was due and its start.
    """

    message_id: str
    actor: str
    queue: str
    number: int
    fence: int
    queued_ms: float
