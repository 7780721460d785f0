"""Lists of messages, events and other answers as JSON: one description for the command line and for HTTP.

Each is an object that names its list, never a bare list, so that a later version can say more beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from worker.history.answers import ActorRates, AuditEntry, QueueInfo, Window, WorkerInfo
from worker.history.as_json import Event, Message, RunningMessage
from worker.history.states import MessageState


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Some messages. `cursor` leads to the next page; null after the last one."""

    messages: list[Message]
    cursor: int | None


@dataclass(frozen=True, slots=True)
class DelayedPage:
    """Some delayed messages, the next due first. `cursor` leads to the next page; null after the last one."""

    messages: list[Message]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class RunningPage:
    """Some running messages, the last enqueued first. `cursor` leads to the next page; null after the last one."""

    messages: list[RunningMessage]
    cursor: int | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, oldest first. The live tail continues after `position`, without a gap."""

    events: list[Event]
    position: str


@dataclass(frozen=True, slots=True)
class States:
    """The number of messages in each state."""

    states: dict[str, int]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Self:
        """Describes counts; a state without messages has 0."""
        return cls({state.value: 0 for state in MessageState} | dict(counts))


@dataclass(frozen=True, slots=True)
class DeadByCause:
    """The number of dead letters by cause, the most frequent first."""

    dead_by_cause: dict[str, int]


@dataclass(frozen=True, slots=True)
class Actors:
    """The rates of each actor over a time that ends now, the busiest first."""

    actors: tuple[ActorRates, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """The counts of each minute, or of each hour, the oldest first."""

    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues, by name."""

    queues: tuple[QueueInfo, ...]


@dataclass(frozen=True, slots=True)
class Workers:
    """The worker processes, by name."""

    workers: tuple[WorkerInfo, ...]


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The actions of people, newest first."""

    actions: tuple[AuditEntry, ...]
