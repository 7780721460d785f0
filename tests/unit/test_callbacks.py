"""Dramatiq's `on_failure`: who asks to be told of failures is told of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware.shutdown import Shutdown

from worker import Fatal, NoContentFound, RetryLater
from worker.attempts.run import current_run
from worker.testing import StubWorker


def raising(error: BaseException) -> Callable[[], None]:
    """A body that raises the error in each attempt."""

    def body() -> None:
        raise error

    return body


def cancelled() -> None:
    """A body that a person cancels."""
    run = current_run.get()
    assert run is not None
    run.cancel()
    while True:
        pass


def told_of(stub: StubWorker, body: Callable[[], None]) -> list[str]:
    """The types of the errors that `on_failure` is told of an actor with this body and one retry."""
    told: list[str] = []

    @dramatiq.actor(broker=stub.broker)
    def tell(message: dict[str, Any], error: dict[str, str]) -> None:
        told.append(error["type"])

    dramatiq.actor(broker=stub.broker, actor_name="works", max_retries=1, on_failure="tell")(body).send()
    stub.join()
    return told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NoContentFound("nothing there"), []),
        (Fatal("never"), ["Fatal"]),
        (ValueError("always"), ["ValueError"] * 2),
    ],
    ids=["skipped", "fatal", "failed"],
)
def test_it_is_called_for_each_attempt_that_failed(stub: StubWorker, error: Exception, told: list[str]) -> None:
    """Not for one that was skipped."""
    assert told_of(stub, raising(error)) == told


def test_it_is_not_called_for_an_attempt_that_waits(stub: StubWorker) -> None:
    """Only for the one that spends the retry budget: that one has failed."""
    assert told_of(stub, raising(RetryLater(0, "busy"))) == ["RetryLater"]
    assert stub.states().count("snoozed") == 1


def test_it_is_not_called_for_an_attempt_that_was_cancelled(stub: StubWorker) -> None:
    """By a person, who knows of it."""
    assert told_of(stub, cancelled) == []


def test_it_is_not_called_for_an_attempt_that_a_shutdown_stops(stub: StubWorker) -> None:
    """Its message runs again; here, on a stock broker, the second time is a dead letter, of which it is told."""
    assert told_of(stub, raising(Shutdown())) == ["Shutdown"]
