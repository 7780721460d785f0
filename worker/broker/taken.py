"""A message that this process has taken, and the end of its attempt while it is being collected."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import dramatiq
from dramatiq.broker import MessageProxy

from worker.attempts.run import AttemptRun
from worker.broker.envelope import Parcel, decode
from worker.history.events import ErrorInfo, State, StatusEvent, UsualEvent
from worker.server.keys import THREAD


class Keeper(Protocol):
    """The session of this process: it knows whether a message still belongs to it, and stores its facts."""

    def begin(self, message: TakenMessage, run: AttemptRun) -> bool:
        """Begins an attempt; False if another process has the message now, or it was cancelled. It may wait."""

    def may_begin(self, message: TakenMessage) -> bool | None:
        """Whether the message's attempt may begin now; None as long as this is not known."""

    def take_begin(self, message: TakenMessage, run: AttemptRun, started: UsualEvent | None = None) -> bool:
        """Takes the begin of an attempt, to be stored soon; True if it must be stored before the attempt goes on."""

    def is_begin_stored(self, message: TakenMessage) -> bool:
        """Waits until the begin is stored; False if it is not, and the message goes back."""

    def record(self, message: TakenMessage, event: StatusEvent) -> None:
        """Takes an event of a message that has not ended here."""

    def end(self, message: TakenMessage, *, rejected: bool) -> None:
        """Takes the end of an attempt, to be stored soon."""


class TakenMessage(MessageProxy):
    """A message with the server's data from its delivery; it hands its events to the session.

    Attributes:
        stream: The stream of its entry.
        entry: The entry's id; each delivery has its own.
        fence: A number that grows with every delivery of the message; only the newest may be stored.
        attempt: The number of its next attempt.
        losses: The number of processes that had it and died, since an attempt ended.
        epoch: The number of the lease's term in which it was taken.
        payload: The message as the server has it.
        priority: The actor's priority, by which runners choose.
        runner: The name of its runner in this process.
        taken_for: The runner in the name of its stream: another one if other processes run its actor in another way.
        at_most_once: Whether its next attempt is its last, whatever befalls it.
        start_is_stored: Whether the server has stored the begin of its attempt.
        run: Its attempt, or None before its begin and after its end.
        ending: The end of its attempt, or None before the actor's function has returned.
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
        losses: int,
        waited_ms: float,
        epoch: int,
        payload: bytes,
    ) -> None:
        super().__init__(message)
        # Dramatiq reads these dozens of times for each message, and the proxy's way to them is slow.
        self.message_id = message.message_id
        self.actor_name = message.actor_name
        self.queue_name = message.queue_name
        self.args = message.args
        self.kwargs = message.kwargs
        self.options = message.options
        self.message_timestamp = message.message_timestamp
        self.stream = stream
        self.runner = THREAD
        self.taken_for = stream.rpartition(":")[2]
        self.entry = entry
        self.fence = fence
        self.attempt = attempt
        self.losses = losses
        self.epoch = epoch
        self.payload = payload
        self.priority = 0
        self.at_most_once = False
        self.start_is_stored = False
        self.keeper: Keeper | None = None
        self.run: AttemptRun | None = None
        self.ending: Ending | None = None
        self.ended = False
        self._due_at = time.monotonic() - waited_ms / 1000

    @property
    def message(self) -> TakenMessage:
        """The message itself, because worker threads expect items with a message."""
        return self

    @property
    def queued_ms(self) -> float:
        """Milliseconds since the message was due."""
        return max(0.0, (time.monotonic() - self._due_at) * 1000)

    def with_sent_arguments(self, message: dramatiq.Message[Any]) -> dramatiq.Message[Any]:
        """The message with the arguments that were sent: its function may have changed the lists that it was given."""
        if message.args is not self.args or message.kwargs is not self.kwargs:
            return message
        sent = decode(self.payload)
        return message.copy(args=sent.args, kwargs=sent.kwargs)

    def begin(self, run: AttemptRun) -> bool:
        """Begins the attempt; False if another process has the message, or it was cancelled before."""
        return self.keeper is not None and self.keeper.begin(self, run)

    def record(self, event: StatusEvent) -> None:
        """Takes an event of the attempt, and stores it soon; an event after the end is dropped."""
        if self.keeper is not None and not self.ended:
            self.keeper.record(self, event)

    def end_as_usual(self, event: UsualEvent) -> None:
        """Adds the event that ends an attempt in which nothing else happened."""
        if self.ending is not None:
            self.ending.event = event

    def record_end(self, event: StatusEvent, becomes: str) -> None:
        """Adds the event that ends the attempt to the end."""
        del becomes  # the message's real fate decides it
        if self.ending is not None:
            self.ending.event = event


class Group(NamedTuple):
    """One of Dramatiq's groups, of which a message is a member.

    Attributes:
        name: The name of its count.
        ttl_ms: Milliseconds for which the count is kept from now on.
        callbacks: Messages that are enqueued with the end of its last member.
    """

    name: str
    ttl_ms: int
    callbacks: list[Parcel]


@dataclass(slots=True)
class Ending:
    """The end of an attempt, collected after the actor's function has returned.

    Attributes:
        event: The event that ends it.
        retry: Its message for the next attempt, or None.
        follow_ups: Messages that are enqueued together with the end.
        group: The group in which the end counts, or None.
        given_back: Whether the message goes back to its queue, because its worker ends.
        rejected: Whether the message becomes a dead letter.
    """

    event: StatusEvent | UsualEvent | None = None
    retry: Parcel | None = None
    follow_ups: list[Parcel] = field(default_factory=list)
    group: Group | None = None
    given_back: bool = False
    rejected: bool = False


def end_of(message: TakenMessage, state: State, text: str) -> StatusEvent:
    """The end of an attempt that has none of its own."""
    error = message._exception  # noqa: SLF001 - where Dramatiq puts it
    return StatusEvent(
        event=f"{message.actor_name}.{state.value}",
        state=state,
        id=f"{message.message_id}:{message.attempt}.end",
        message_id=message.message_id,
        actor=message.actor_name,
        queue=message.queue_name,
        attempt=message.attempt,
        text=text,
        error=ErrorInfo.of(error) if error is not None else None,
    )


def waiting_of(message: TakenMessage, text: str) -> StatusEvent:
    """The event of a message that waits for a worker that can run it; it belongs to no attempt."""
    return StatusEvent(
        event=f"{message.actor_name}.{State.WAITING.value}",
        state=State.WAITING,
        id=f"{message.message_id}:{message.fence}.waiting",
        message_id=message.message_id,
        actor=message.actor_name,
        queue=message.queue_name,
        text=text,
    )
