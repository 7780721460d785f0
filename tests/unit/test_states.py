"""One table of states: everything that shows or asks for a state has each of them."""

from __future__ import annotations

from worker.cli.output import MESSAGE_STYLES, state_style
from worker.history.events import State
from worker.history.lists_as_json import States
from worker.history.states import (
    APPLIES_TO,
    ATTEMPT_MARKS,
    ATTEMPT_STATES,
    ENDINGS,
    FAILURES,
    MARKS,
    OPEN,
    WAITS,
    Action,
    MessageState,
    actions_for,
    ended_work,
    error_share,
)
from worker.operations.actions import ACTIONS


def test_a_message_is_open_or_has_ended() -> None:
    """The first three states come before the others wherever states are listed."""
    assert list(MessageState)[: len(OPEN)] == list(OPEN)
    assert [state.is_final for state in MessageState] == [False] * 3 + [True] * 4


def test_an_attempt_runs_or_has_ended() -> None:
    """The endings are the final states of events, in their order; two of them are failures, and one only waits."""
    assert list(ENDINGS) == [state for state in State if state.is_final]
    assert ("running", *ENDINGS) == ATTEMPT_STATES
    assert set(FAILURES) < set(ENDINGS)
    assert set(WAITS) < set(ENDINGS) - set(FAILURES)
    assert list(MARKS) == [*MessageState, *ATTEMPT_MARKS]
    assert list(ATTEMPT_MARKS) == [state for state in ENDINGS if state in (*FAILURES, *WAITS)]


def test_waiting_is_no_failure_and_hides_none() -> None:
    """A snoozed attempt is no error, and makes the share of errors among the others no smaller."""
    assert error_share({"snoozed": 40, "completed": 60}) == 0
    assert error_share({"snoozed": 990, "failed": 4, "lost": 1, "completed": 5}) == 0.5
    assert error_share({"snoozed": 3}) == error_share({}) == 0
    assert ended_work({"snoozed": 3, "completed": 2, "cancelled": 1}) == 3


def test_every_state_has_a_colour() -> None:
    """In the terminal, of messages and of attempts."""
    assert list(MESSAGE_STYLES) == list(MessageState)
    assert all(state_style(state) for state in (*MessageState, *ATTEMPT_STATES, *State))


def test_every_state_is_counted() -> None:
    """Also one without messages; one that a later version added stays."""
    assert States.of({"dead": 2, "frozen": 1}).states == dict.fromkeys(MessageState, 0) | {"dead": 2, "frozen": 1}


def test_actions_are_for_states() -> None:
    """Each action is for some; a message that has ended well has none."""
    assert list(APPLIES_TO) == list(Action)
    assert set(ACTIONS) == set(Action)
    assert actions_for("dead") == ("replay", "purge")
    assert actions_for("delayed") == ("run_now", "cancel")
    assert actions_for("running") == actions_for("queued") == ("cancel",)
    assert actions_for("completed") == actions_for("frozen") == ()
