"""A broker of somebody else, such as a test's `StubBroker`, gets the middleware without which our actors are not ours.

Nothing here may start a server, or wait for one: what happens on such a broker is not recorded.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from dramatiq.broker import Broker
from dramatiq.middleware import Middleware
from dramatiq.middleware.threading import Interrupt

from worker.attempts.run import AttemptRun, current_run
from worker.attempts.running import RunningAttempts
from worker.attempts.runs import Runs
from worker.attempts.spans import recorder_override
from worker.broker.chain import in_place_of
from worker.broker.runners import CONCURRENCY
from worker.history.events import StatusEvent

P = ParamSpec("P")
R = TypeVar("R")

_adopted: weakref.WeakSet[Broker] = weakref.WeakSet()


def is_strange(broker: Broker) -> bool:
    """Whether neither we have made this broker, nor `adopt` has seen it."""
    return not any(isinstance(one, Runs) for one in broker.middleware)


def adopt(broker: Broker, ours: Sequence[Middleware]) -> None:
    """Puts our middleware in the place of Dramatiq's own that do the same work, with their values.

    What the broker does not have, such as retries, it does not get; but the begin and the end of attempts, in which our
    errors and interrupts are understood, come first in any case.
    """
    _adopted.add(broker)
    changed = [in_place_of(one, ours) for one in broker.middleware]
    runs = [one for one in ours if isinstance(one, Runs)]
    broker.middleware[:] = [*runs, *(new or old for new, old in zip(changed, broker.middleware, strict=True))]
    broker.actor_options.add(CONCURRENCY)  # it has a meaning on our own broker alone
    for new in reversed([*runs, *(one for one in changed if one is not None)]):
        broker.actor_options |= new.actor_options
        for actor in broker.actors.values():
            new.after_declare_actor(broker, actor)


def is_recorded(broker: Broker) -> bool:
    """Whether a direct call of an actor is recorded: not if the broker was adopted."""
    return broker not in _adopted or current_run.get() is not None or recorder_override.get() is not None


def call_unrecorded(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function of which nothing is recorded."""
    token = recorder_override.set(Nowhere())
    try:
        return function(*args, **kwargs)
    finally:
        recorder_override.reset(token)


class Nowhere:
    """A recorder that keeps nothing."""

    def record(self, event: StatusEvent) -> None:
        """Keeps nothing."""

    def record_end(self, event: StatusEvent, becomes: str) -> None:
        """Keeps nothing."""

    def flush(self, timeout: float) -> bool:
        """Nothing ever waits here."""
        del timeout
        return True


class WatchedOnDemand(RunningAttempts):
    """Attempts whose deadlines are watched from the first on: the worker may have begun before our middleware came."""

    def limit(self, run: AttemptRun, seconds: float, interrupt: type[Interrupt]) -> None:
        """Interrupts an attempt in this many seconds."""
        if not self.is_watched:
            self.start()
        super().limit(run, seconds, interrupt)
