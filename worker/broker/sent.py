"""`Sent`: what a send answers, a message that knows whether it was enqueued."""

from __future__ import annotations

from typing import TypeVar

import dramatiq

from worker.ground.logs import get_logger

logger = get_logger(__name__)

R_co = TypeVar("R_co", covariant=True)


class Sent(dramatiq.Message[R_co]):
    """A message that was sent.

    It equals the plain message with the same fields, and takes part in groups and pipelines like any other.

    Attributes:
        is_new: Whether this send has enqueued it. False: nothing was enqueued, because a message with its id waits or
            runs already, the id was seen before, or another message has its unique key, whose id it then bears.
    """

    # Not a field: Dramatiq makes messages of the fields of others.
    is_new = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dramatiq.Message) and self.asdict() == other.asdict()

    __hash__ = dramatiq.Message.__hash__


def tell_taken(message_id: str) -> None:
    """Tells the log of a message that was not enqueued, because its id is taken."""
    logger.warning(
        "nothing was enqueued: a message with this id waits or runs already; give each message its own id",
        id=message_id,
    )


def answered(message: dramatiq.Message[R_co], in_the_way: str = "") -> Sent[R_co]:
    """The answer to the sending of a message.

    Args:
        message: The message.
        in_the_way: The id of the message because of which it was not enqueued, or empty.
    """
    fields = message.__dict__
    if in_the_way:
        fields = {**fields, "message_id": in_the_way, "is_new": False}
    elif isinstance(message, Sent):
        if message.is_new:
            return message
        fields = {**fields, "is_new": True}
    # The two share their fields, because neither can be changed: the constructor takes ten times as long.
    sent: Sent[R_co] = object.__new__(Sent)
    object.__setattr__(sent, "__dict__", fields)
    return sent


def as_sent(message: dramatiq.Message[R_co]) -> Sent[R_co]:
    """The answer of a broker, which may be another than ours, and answers with a plain message."""
    return message if isinstance(message, Sent) else answered(message)
