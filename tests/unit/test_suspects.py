"""How many of the messages that dead processes had may begin at once."""

from __future__ import annotations

from typing import cast

import pytest

from tests.unit.test_holdings import Clock, taken
from worker.attempts.run import AttemptRun
from worker.broker import suspects as suspects_module
from worker.broker.suspects import FEW, WATCHED, Suspects
from worker.broker.taken import TakenMessage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(suspects_module, "time", made)
    return made


def held(suspects: Suspects, losses: int, *, begun: bool = True) -> TakenMessage:
    message = taken()
    message.losses = losses
    suspects.add(message)
    if begun:
        begin(message)
    return message


def begin(message: TakenMessage) -> None:
    message.run = cast("AttemptRun", object())


def test_few_that_were_lost_once_begin_at_once(clock: Clock) -> None:
    """As many as there are places; an end makes one free."""
    suspects = Suspects()
    assert suspects.allowed() == (1, FEW)
    messages = [held(suspects, 1) for _ in range(FEW)]
    assert suspects.allowed() == (0, 0)
    suspects.remove(messages[0])
    assert suspects.allowed() == (0, 1)


def test_one_that_was_lost_more_often_begins_alone(clock: Clock) -> None:
    """Neither another of its kind nor one that was lost once begins beside it; nor it beside them."""
    suspects = Suspects()
    message = held(suspects, 2)
    assert suspects.allowed() == (0, 0)
    suspects.remove(message)
    held(suspects, 1)
    assert suspects.allowed() == (0, FEW - 1)


@pytest.mark.parametrize(("losses", "seconds"), [(1, WATCHED), (2, 8 * WATCHED), (4, 512 * WATCHED)])
def test_one_that_has_run_for_a_while_lets_the_next_begin(clock: Clock, losses: int, seconds: float) -> None:
    """Eight times as long after each further loss, so that one that kills late is alone in the end."""
    suspects = Suspects()
    held(suspects, losses)
    assert suspects.changes_in() == seconds
    clock.now += seconds - 0.5
    assert suspects.changes_in() == 0.5
    assert suspects.allowed() != (1, FEW)
    clock.now += 0.5
    assert suspects.changes_in() is None
    assert suspects.allowed() == (1, FEW)


def test_one_that_waits_for_its_runner_keeps_its_place(clock: Clock) -> None:
    """Its time begins when its attempt begins."""
    suspects = Suspects()
    message = held(suspects, 1, begun=False)
    clock.now += 10 * WATCHED
    assert (suspects.allowed(), suspects.changes_in()) == ((0, FEW - 1), None)
    begin(message)
    assert (suspects.allowed(), suspects.changes_in()) == ((0, FEW - 1), WATCHED)
