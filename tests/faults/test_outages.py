"""Redis gone for ten seconds under a load of all kinds, while people act: no end is lost or doubled."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
import redis

from tests.support.account import settle
from tests.support.indexes import indexes_agree
from tests.support.load import Load
from tests.support.scene import Scene, scene
from tests.support.waiting import TIMEOUT, wait_until
from worker.errors import ServerUnreachable
from worker.history.events import State
from worker.history.filters import EventFilter
from worker.history.overview import audit_log
from worker.history.query import ask
from worker.history.tail import BEGINNING, follow_events
from worker.operations.actions import Outcome, cancel, pause, resume
from worker.server.client import RedisClient

OUTAGE = 10
T = TypeVar("T")


def is_killed(opened: Scene) -> Callable[[], None]:
    """As by a power failure; it comes back with what it had answered for. Answers with what brings it back."""
    opened.server.kill()
    return opened.server.start


def is_suspended(opened: Scene) -> Callable[[], None]:
    """As a machine that swaps, or is moved: nothing is refused, and nothing answered."""
    opened.server.signal(signal.SIGSTOP)
    return lambda: opened.server.signal(signal.SIGCONT)


class Follower:
    """Follows the tail, and connects again wherever it was cut off."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._ends = threading.Event()
        self.seen: list[tuple[str, str]] = []
        self.missed = False
        self.cuts = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self._client.close()

    def _run(self) -> None:
        after = BEGINNING
        while not self._ends.is_set():
            try:
                for one in follow_events(self._client, EventFilter(), after=after):
                    after = one.position
                    self.missed = self.missed or one.missed
                    if one.event is not None:
                        self.seen.append((one.event.message_id or "", one.event.id))
                    elif self._ends.is_set():
                        return
            except (redis.RedisError, OSError):
                self.cuts += 1
                self._client.connection_pool.disconnect()
                time.sleep(0.05)


def surely(act: Callable[[], T]) -> T:
    """Asks for it until the server has heard."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return act()
        except ServerUnreachable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("fails", [is_killed, is_suspended])
def test_in_ten_seconds_without_a_server_no_end_is_lost_or_doubled(
    tmp_path: Path, fails: Callable[[Scene], Callable[[], None]]
) -> None:
    """What completes, fails, is retried, reports progress, is cancelled or paused: all of it is told once, in order."""
    with scene(tmp_path) as opened:
        workers = [opened.start_ready(name, threads=8) for name in ("a", "b")]
        follower = Follower(opened.server.connect(timeout=3))
        elsewhere = opened.send("elsewhere", queue="other")
        long = opened.send_to_both("long", [["completes"]] * 3)
        progressing = opened.send_many("reports", [[280]] * 4)
        wait_until(
            lambda: opened.states()["running"] >= 10 and len(opened.ledger("began")) >= 11, TIMEOUT, opened.explain
        )
        load = Load(opened, 0.01)
        wait_until(lambda: len(load.sent) >= 100, explain=opened.explain)
        assert pause(opened.client, "other")
        paused = [opened.send("elsewhere", queue="other") for _ in range(5)]
        cancel(opened.client, long[:2])
        comes_back = fails(opened)
        failed_at = time.monotonic()
        impatient: list[Outcome] = []
        asker = opened.server.connect(timeout=60)
        thread = threading.Thread(target=lambda: impatient.append(surely(lambda: cancel(asker, long[2:4]))))
        thread.start()
        wait_until(lambda: any(worker.tells()["health"]["errors"] for worker in workers), explain=opened.explain)
        wait_until(lambda: time.monotonic() - failed_at > OUTAGE)
        comes_back()
        thread.join(TIMEOUT)
        asker.close()
        goal = len(load.sent) + 100
        wait_until(lambda: len(load.sent) > goal, explain=opened.explain)
        cancel(opened.client, long[4:])
        load.end()
        everything = [*load.sent, *long, *progressing, *paused, elsewhere]
        others = len(everything) - len(paused)
        wait_until(lambda: opened.ended() == others, explain=opened.explain)
        assert not {run.message_id for run in opened.ledger()} & set(paused), "it was paused"
        resume(opened.client, "other")
        opened.wait_for_end(len(everything))
        expected = load.expected + Counter({"completed": len(progressing) + len(paused) + 1, "cancelled": len(long)})
        assert settle(opened, everything) == expected
        assert {run.message_id for run in opened.ledger("cleaned")} == set(long)
        assert [entry.action for entry in ask(opened.client, audit_log())][::-1][:2] == ["pause", "cancel"]
        health = [worker.tells()["health"] for worker in workers]
        assert [(one["events_dropped"], one["ends_refused"]) for one in health] == [(0, 0)] * 2
        follower.end()
        what_was_followed_is_what_is_stored(opened, follower)


def what_was_followed_is_what_is_stored(opened: Scene, follower: Follower) -> None:
    """No event twice and none left out, each message's in its order; progress is in steps."""
    assert not follower.missed
    assert follower.cuts > 0
    assert len(set(follower.seen)) == len(follower.seen), "an event came twice"
    seen: dict[str, list[str]] = {}
    for message_id, event_id in follower.seen:
        seen.setdefault(message_id, []).append(event_id)
    messages = indexes_agree(opened.client)
    assert seen == {message.id: [event.id for event in message.events] for message in messages.values()}
    for message in messages.values():
        steps = [event.done or 0 for event in message.events if event.state is State.PROGRESS]
        assert all(one < two for one, two in pairwise(steps))
        if message.actor == "reports":
            assert len(steps) >= 3
