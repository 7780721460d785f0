"""A message that this process has taken, and the end of its attempt while that is put together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import dramatiq
from dramatiq.broker import MessageProxy

from worker.attempts.run import AttemptRun
from worker.broker.envelope import Parcel
from worker.history.events import StatusEvent


class Keeper(Protocol):
    """The session of this process: it knows whether a message is still its own, and has its events stored."""

    def begin(self, message: TakenMessage, run: AttemptRun) -> bool:
        """Notes that an attempt begins; False: the message is not ours any more, or was cancelled."""

    def record(self, message: TakenMessage, event: StatusEvent) -> None:
        """Takes an event of a message that has not ended here."""


class TakenMessage(MessageProxy):
    """A message with what the server said of it when it was taken; it hands its events to the session.

    Attributes:
        stream: Where its entry is.
        entry: The entry's id: no two deliveries share one.
        fence: Grows with every delivery of the message; only the newest may be stored.
        attempt: The number of the attempt that will run it.
        redelivered: Whether a process died that had it before.
        epoch: The lease under which it was taken.
        priority: Its actor's, by which worker threads take it.
        run: Its attempt, or None before that begins.
        ending: What goes with its end, or None before the actor's function has returned.
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
        self.priority = 0
        self.keeper: Keeper | None = None
        self.run: AttemptRun | None = None
        self.ending: Ending | None = None
        self.ended = False
        self._due_at = time.monotonic() - waited_ms / 1000

    @property
    def message(self) -> TakenMessage:
        """Itself: a worker thread takes items with a message from its queue."""
        return self

    @property
    def queued_ms(self) -> float:
        """Milliseconds since it was due."""
        return max(0.0, (time.monotonic() - self._due_at) * 1000)

    def begin(self, run: AttemptRun) -> bool:
        """Begins the attempt; False: the message has gone to another process, or was cancelled before it began."""
        return self.keeper is not None and self.keeper.begin(self, run)

    def record(self, event: StatusEvent) -> None:
        """Takes an event of the attempt, to be stored soon; one that comes after its end is dropped."""
        if self.keeper is not None and not self.ended:
            self.keeper.record(self, event)

    def record_end(self, event: StatusEvent, becomes: str) -> None:
        """Puts the event that ends the attempt with what is stored at its end."""
        del becomes  # decided by what becomes of the message in fact
        if self.ending is not None:
            self.ending.event = event


@dataclass(slots=True)
class Ending:
    """What goes with the end of an attempt, from the moment when the actor's function has returned.

    Attributes:
        event: The event that ends it.
        retry: Its message for the next attempt, or None.
        follow_ups: Messages that are enqueued together with the end.
        given_back: Whether the message goes back to its queue: its worker ends.
        rejected: Whether the message is a dead letter.
    """

    event: StatusEvent | None = None
    retry: Parcel | None = None
    follow_ups: list[Parcel] = field(default_factory=list)
    given_back: bool = False
    rejected: bool = False
