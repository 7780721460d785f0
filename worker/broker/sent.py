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


def as_sent(message: dramatiq.Message[R_co], *, is_new: bool = True, holder: str = "") -> Sent[R_co]:
    """The message as the answer to its sending.

    Args:
        message: The message, with which the answer shares arguments and options.
        is_new: Whether it was enqueued.
        holder: The id of the message that has its place, or empty.
    """
    if isinstance(message, Sent) and message.is_new == is_new and not holder:
        return message
    # Not by the constructor, which takes five times as long, for thousands of messages.
    sent: Sent[R_co] = object.__new__(Sent)
    fields = vars(sent)
    fields.update(vars(message))
    if not is_new:
        fields["is_new"] = False
    if holder:
        fields["message_id"] = holder
    return sent
