"""Testing actors without a server: a stub broker, a real Dramatiq worker, and the recorded events to assert on.

def test_a_newsletter_is_sent():
    with stub_worker() as worker:
        send_newsletter.send("issue-7")
        worker.join()
        assert worker.states() == ["started", "completed"]
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
from dramatiq.broker import Broker
from dramatiq.brokers.stub import StubBroker

from worker.attempts.running import RunningAttempts
from worker.attempts.spans import recorder_override
from worker.broker import ensure_broker, message_middleware
from worker.broker.named_leases import LocalLeases, leases_kept_in
from worker.broker.runners import CONCURRENCY
from worker.history.events import StatusEvent
from worker.settings import Settings
from worker.settings.groups import put_in_force

__all__ = ["RecordedEvents", "StubWorker", "recorded_events", "stub_broker", "stub_worker"]


_QUICK = timedelta(milliseconds=20)


class RecordedEvents:
    """A recorder that keeps events in memory, in the order in which they were recorded."""

    def __init__(self) -> None:
        self._events: list[StatusEvent] = []
        self._lock = threading.Lock()

    def record(self, event: StatusEvent) -> None:
        """Keeps an event."""
        with self._lock:
            self._events.append(event)

    def record_end(self, event: StatusEvent, becomes: str) -> None:
        """Keeps an event."""
        del becomes
        self.record(event)

    def flush(self, timeout: float) -> bool:
        """Nothing ever waits here."""
        del timeout
        return True

    def __iter__(self) -> Iterator[StatusEvent]:
        with self._lock:
            return iter(list(self._events))

    def __len__(self) -> int:
        with self._lock:
            return len(self._events)

    def states(self, *, message_id: str | None = None) -> list[str]:
        """The states of the events, of one message or of all, in order."""
        return [event.state.value for event in self if message_id in (None, event.message_id)]


class StubWorker:
    """The worker that `stub_worker` yields, with its broker, its recorded events, and `join` to wait for the work."""

    def __init__(self, broker: StubBroker, worker: dramatiq.Worker, events: RecordedEvents) -> None:
        self.broker = broker
        self.events = events
        self._worker = worker

    @property
    def dead_letters(self) -> list[str]:
        """The ids of the messages that failed for good."""
        return [message.message_id for message in self.broker.dead_letters]

    def states(self, *, message_id: str | None = None) -> list[str]:
        """The states of the recorded events, of one message or of all, in order."""
        return self.events.states(message_id=message_id)

    def join(self, timeout: timedelta | float = 10.0) -> None:
        """Waits until every message has ended, with all of its retries.

        Args:
            timeout: Seconds, or a `timedelta`, for each queue.

        Raises:
            dramatiq.errors.QueueJoinTimeout: It took longer.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        for queue in self.broker.get_declared_queues() - self.broker.get_declared_delay_queues():
            self.broker.join(queue, timeout=round(seconds * 1000), fail_fast=False)
        self._worker.join()


class _QuickBroker(StubBroker):
    """A stub broker that shortens all delays."""

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        longest = round(_QUICK.total_seconds() * 1000)
        return super().enqueue(message, delay=None if delay is None else min(delay, longest))


@contextlib.contextmanager
def stub_worker(*, settings: Settings | None = None, threads: int = 2) -> Iterator[StubWorker]:
    """Runs every actor of the program on a stub broker with a real worker, until the block ends.

    Actors that were declared before run on it too; afterwards they are back on their own broker. Failed messages are
    retried after milliseconds, also if they ask for a longer delay, so that a test sees all attempts at once.

    Args:
        settings: The settings for the actors, with unchanged delays; or None for those in force, with short delays.
        threads: Worker threads.

    Raises:
        TypeError: `settings` is no `Settings`, or `threads` no number from 1.
    """
    if not isinstance(threads, int) or threads < 1:
        raise TypeError(f"threads={threads!r:.80}: write a number from 1")
    events = RecordedEvents()
    with _stub(settings, events) as stub:
        worker = dramatiq.Worker(stub, worker_timeout=20, worker_threads=threads)
        worker.start()
        try:
            yield StubWorker(stub, worker, events)
        finally:
            worker.stop()


@contextlib.contextmanager
def stub_broker(*, settings: Settings | None = None) -> Iterator[StubBroker]:
    """Makes a `StubBroker` with our middleware the program's broker until the block ends; the test starts workers.

    Actors that were declared before are on it too, as with `stub_worker`. No server is started, and nothing recorded.
    The module `worker.testing.pytest_plugin` has it as a fixture.

    Args:
        settings: The settings for the actors, with unchanged delays; or None for those in force, with short delays.
    """
    with _stub(settings, RecordedEvents()) as stub:
        yield stub


@contextlib.contextmanager
def _stub(settings: Settings | None, events: RecordedEvents) -> Iterator[StubBroker]:
    before = Settings.in_force()
    quick = {"min_backoff": timedelta(milliseconds=1), "max_backoff": _QUICK}
    put_in_force(settings or before.model_copy(update=quick))
    own = ensure_broker()
    stub = (_QuickBroker if settings is None else StubBroker)(
        middleware=message_middleware(Settings.in_force(), events, RunningAttempts())
    )
    stub.actor_options.add(CONCURRENCY)  # it has a meaning on our own broker alone
    _move_actors(own, stub)
    dramatiq.set_broker(stub)
    stub.emit_after("process_boot")
    try:
        with recorded_events(events), leases_kept_in(LocalLeases()):
            yield stub
    finally:
        stub.close()
        _move_actors(stub, own)
        dramatiq.set_broker(own)
        put_in_force(before)


@contextlib.contextmanager
def recorded_events(events: RecordedEvents | None = None) -> Iterator[RecordedEvents]:
    """Keeps the events of status contexts outside a worker, such as those of a service that the test itself calls."""
    kept = events if events is not None else RecordedEvents()
    token = recorder_override.set(kept)
    try:
        yield kept
    finally:
        recorder_override.reset(token)


def _move_actors(source: Broker, target: Broker) -> None:
    actors: list[dramatiq.Actor[Any, Any]] = list(source.actors.values())
    for one in actors:
        one.broker = target
        if one.actor_name not in target.actors:
            target.declare_actor(one)
    target.actors.update({name: one for name, one in source.actors.items() if name not in target.actors})
