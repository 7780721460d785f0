"""When messages are due: on the server's clock, in order, however many and however far in the future."""

from __future__ import annotations

import os
import random
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import settle
from tests.support.project import ROOT
from tests.support.runners import RUNNERS
from tests.support.scene import Scene, scene
from tests.support.waiting import wait_until
from worker.history.events import State
from worker.history.filters import EventFilter
from worker.history.query import ask, one_message, read_events

WRONG_CLOCK = '''
"""Shifts the clock of the process."""
import datetime
import os
import time

shift = float(os.environ["CLOCK_SHIFT"])
right = time.time
time.time = lambda: right() + shift
time.time_ns = lambda: int((right() + shift) * 1e9)


class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=shift)


datetime.datetime = Shifted
'''
MINUTE = 60
ON_TIME = 20
"""Seconds: what goes by a wrong clock is a minute early or late."""
YEAR_MS = 365 * 24 * 3600 * 1000
DELAYED, BATCH = 10_000, 100


def wrong_clock(opened: Scene, seconds: int) -> dict[str, str]:
    """The variables of a worker whose clock is wrong by so many seconds."""
    folder = opened.folder / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(WRONG_CLOCK)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "CLOCK_SHIFT": str(seconds)}


def test_clocks_that_differ_by_minutes_change_neither_times_nor_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker's clock is a minute late, the other's and the sender's early: all runs when it is due."""
    with scene(tmp_path, WORKER_LEASE="1s", WORKER_MIN_BACKOFF="400ms", WORKER_MAX_BACKOFF="800ms") as opened:
        early = opened.start("early", variables=wrong_clock(opened, -MINUTE))
        late = opened.start("late", variables=wrong_clock(opened, MINUTE))
        wait_until(lambda: early.is_ready() and late.is_ready(), explain=opened.explain)
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + MINUTE)
        sent_at = time.monotonic()
        delays = [2400, 600, 1800, 300, 1200, 2100, 900, 1500]
        delayed = {
            opened.send("work", delay=delay, runner=runner): delay
            for delay, runner in zip(delays, cycle(RUNNERS), strict=False)
        }
        at_once = opened.send_to_both("mixed", [["retried"]] * 5)
        opened.wait_for_end(18)
        monkeypatch.undo()
        ran = {run.message_id: run.at - sent_at for run in opened.ledger("done")}
        assert sorted(delayed, key=ran.__getitem__) == sorted(delayed, key=delayed.__getitem__)
        for message_id, delay in delayed.items():
            assert delay / 1000 <= ran[message_id] < delay / 1000 + ON_TIME
        for message_id in at_once:
            first, second = (run.at - sent_at for run in opened.ledger("began") if run.message_id == message_id)
            assert first < ON_TIME
            assert 0.2 <= second - first < ON_TIME
            message = ask(opened.client, one_message(message_id))
            assert message is not None
            assert all(0 <= (event.queued_ms or 0) < 1_000 * ON_TIME for event in message.events)
        # A message whose attempts were told by both clocks.
        early.terminate()
        wait_until(lambda: early.process.poll() is not None)
        both = opened.send("mixed", "retried", 0)
        wait_until(lambda: opened.states()["delayed"] == 1)
        late.kill()
        opened.start("early-again", variables=wrong_clock(opened, -MINUTE))
        opened.wait_for_end(19)
        told = [event.state for event in read_events(opened.client, EventFilter(message_id=both), 100)]
        assert told == [State.STARTED, State.FAILED, State.STARTED, State.COMPLETED]
        assert settle(opened, [*delayed, *at_once, both]) == {"completed": 19}


def test_ten_thousand_delayed_messages_are_promoted_once_in_due_order(tmp_path: Path) -> None:
    """Two workers promote them on time and hold none; one due in a year holds up none that is due in a second."""
    with scene(tmp_path) as opened:
        # They keep time for all queues, and take messages of another.
        keepers = [opened.start_ready(name, "--queues", "other") for name in ("a", "b")]
        began = time.monotonic()
        opened.broker.enqueue_many([opened.message("elsewhere", queue="other") for _ in range(BATCH)])
        pace = max(1.0, (time.monotonic() - began) * (DELAYED / BATCH))
        opened.wait_for_end(BATCH)
        before = [keeper.tells()["rss"] for keeper in keepers]
        year = opened.send("work", delay=YEAR_MS)
        soon = opened.send("work", delay=1_000)
        # The first is due when all are sent, however long that takes here.
        steps = [round(4_000 * pace) + 40 * step for step in range(DELAYED // BATCH)]
        random.Random(7).shuffle(steps)
        sent = [one for step in steps for one in opened.send_many("work", [[]] * BATCH, delay=step)]
        due: Any = opened.client.zrange("{worker}:due", 0, -1, withscores=True)
        assert len(due) >= DELAYED + 1
        after = [keeper.tells()["rss"] for keeper in keepers]
        assert all(now - then < 2_000_000 for now, then in zip(after, before, strict=True))
        wait_until(lambda: opened.client.zcard("{worker}:due") == 1, explain=opened.explain)
        stream: Any = opened.client.xrange("{worker}:q:default:normal:loop", "-", "+")
        first, *promoted = [(fields[b"i"], entry) for entry, fields in stream]
        assert first[0].decode() == soon
        expected = [(one, score) for one, score in due if one.decode() not in (soon, year)]
        assert [one for one, _ in promoted] == [one for one, _ in expected]
        lateness = [
            int(entry.split(b"-")[0]) - score for (_, entry), (_, score) in zip(promoted, expected, strict=True)
        ]
        assert min(lateness) >= 0
        assert max(lateness) < 1_000 * pace
        assert not opened.pending()
        opened.start("c", threads=8)
        opened.wait_for_end(DELAYED + 1 + BATCH)
        begun = [run.message_id for run in opened.ledger("began")]
        assert len(begun) == len(set(begun)) == DELAYED + 1 + BATCH
        everything = [*sent, soon, year, *(key for key in begun if key not in {*sent, soon})]
        assert settle(opened, everything, delayed={year}) == {"completed": DELAYED + 1 + BATCH, "delayed": 1}
