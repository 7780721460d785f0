"""A message that this process has taken, and the end of its attempt while that is put together."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy

from worker.broker.envelope import Parcel
from worker.history.events import StatusEvent


class TakenMessage(MessageProxy):
    """A message with what the server said of it when it was taken.

    Attributes:
        stream: Where its entry is.
        entry: The entry's id: no two deliveries share one.
        fence: Grows with every delivery of the message; only who has the newest may store anything.
        attempt: The number of the attempt that will run it.
        redelivered: Whether a process died that had it before.
        epoch: The lease under which it was taken.
        begun: Whether its attempt has begun; `begun_at`: when, in seconds since the epoch.
        cancelled: Whether somebody wanted it to end.
        ended: Whether its attempt has ended.
    """

    def __init__(
        self,
        message: dramatiq.Message[Any],
        *,
        stream: str,
        entry: str,
        fence: int,
        attempt: int,
        redelivered: bool,
        waited_ms: float,
        epoch: int,
    ) -> None:
        super().__init__(message)
        # Dramatiq asks for these dozens of times for each message; the proxy would look them up the long way.
        self.message_id = message.message_id
        self.actor_name = message.actor_name
        self.queue_name = message.queue_name
        self.args = message.args
        self.kwargs = message.kwargs
        self.options = message.options
        self.message_timestamp = message.message_timestamp
        self.stream = stream
        self.entry = entry
        self.fence = fence
        self.attempt = attempt
        self.redelivered = redelivered
        self.epoch = epoch
        self.begun = False
        self.begun_at = 0.0
        self.cancelled = False
        self.ended = False
        self._due_at = time.monotonic() - waited_ms / 1000

    @property
    def queued_ms(self) -> float:
        """Milliseconds since it was due."""
        return max(0.0, (time.monotonic() - self._due_at) * 1000)


@dataclass(slots=True)
class Ending:
    """What goes with the end of an attempt, from the moment when the actor's body has returned."""

    message: TakenMessage
    event: StatusEvent | None = None
    retry: Parcel | None = None
    follow_ups: list[Parcel] = field(default_factory=list)
    given_back: bool = False

    def add(self, parcel: Parcel) -> None:
        """Has a message enqueued together with the end; the attempt's own is its retry."""
        if parcel.message_id == self.message.message_id:
            self.retry = parcel
        else:
            self.follow_ups.append(parcel)


class Endings(threading.local):
    """The ending that the calling thread puts together, if it does."""

    current: Ending | None = None

    def take(self, message: TakenMessage) -> Ending:
        """What has been put together for the message; from now on nothing is."""
        ending, self.current = self.current, None
        return ending if ending is not None and ending.message is message else Ending(message)
