"""The states of messages and of attempts, in the order in which they are shown, and the actions for each.

The states of an attempt are those of its events: `worker.history.events.State`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from worker.history.events import State


class MessageState(StrEnum):
    """The states of a message, in the order in which they are shown."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the message has ended: only a person's replay brings it back."""
        return self not in OPEN


OPEN = (MessageState.QUEUED, MessageState.DELAYED, MessageState.RUNNING)
"""The states of messages that have not ended, in the order in which they are shown."""

ENDINGS = tuple(state for state in State if state.is_final)
"""The states that end an attempt, in the order in which they are shown."""

FAILURES = (State.FAILED, State.LOST)
"""The endings of attempts that count as errors."""

WAITS = (State.SNOOZED,)
"""The endings of attempts that only wait for a later time or for a lease: they are no part of a share of errors."""

ATTEMPT_STATES = (MessageState.RUNNING.value, *ENDINGS)
"""The states of an attempt as a whole: running, or the state that ended it."""

ATTEMPT_MARKS = {state.value: f"ended:{state}" for state in ENDINGS if state in (*FAILURES, *WAITS)}
"""The endings by which messages are found too (those with such an attempt), each with the name of its index."""

MARKS = {state.value: f"state:{state}" for state in MessageState} | ATTEMPT_MARKS
"""All values of a filter by state, each with the name of its index on the server."""

FAILED = (*(state.value for state in FAILURES), MessageState.DEAD.value)
"""The values of a filter by state that find only messages that have failed: these are listed by their last failure."""

FAILING = (*OPEN, MessageState.DEAD)
"""The states of a message whose failure was neither made good by a later attempt nor settled by a person."""

FOUND_BY_ENDING = (State.COMPLETED, State.SKIPPED, *FAILURES, *WAITS)
"""An attempt with one of these endings has a message that is found by the mark of the same name."""


def ended_work(ended: Mapping[str, int]) -> int:
    """The number of ended attempts that did not only wait; `ended` has their number by state."""
    return sum(ended.values()) - _sum(ended, WAITS)


def error_share(ended: Mapping[str, int]) -> float:
    """The share of these attempts that failed or were lost, 0 to 1; `ended` has the number of attempts by state."""
    work = ended_work(ended)
    return _sum(ended, FAILURES) / work if work else 0.0


def _sum(ended: Mapping[str, int], states: Iterable[State]) -> int:
    return sum(ended.get(state, 0) for state in states)


class Action(StrEnum):
    """The actions of people on messages."""

    REPLAY = "replay"
    RUN_NOW = "run_now"
    CANCEL = "cancel"
    PURGE = "purge"


APPLIES_TO: Mapping[str, tuple[MessageState, ...]] = {
    Action.REPLAY: (MessageState.DEAD,),
    Action.RUN_NOW: (MessageState.DELAYED,),
    Action.CANCEL: OPEN,
    Action.PURGE: (MessageState.DEAD,),
}
"""The states of messages that an action is for."""


def actions_for(state: str) -> tuple[str, ...]:
    """The actions on a message in this state."""
    return tuple(action for action, states in APPLIES_TO.items() if state in states)
