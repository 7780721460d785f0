"""Minutes of everything at once: all kinds of messages and ends, processes and servers that come and go.

`make soak` runs it for ten minutes; `SOAK_SECONDS` sets another time.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.account import settled
from tests.support.project import ROOT
from tests.support.scene import Scene, scene
from tests.support.waiting import TIMEOUT, wait_until

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SENDERS = 3
PAUSE = 0.04
"""Seconds between two messages of a sender."""

STEADY, VICTIMS = ("a", "b"), ("x", "y")
WORKER_EVERY, SERVER_EVERY = 4.0, 25.0
"""Seconds between two ends of workers, and of the server."""

MEGABYTE = 2**20
SETTLES_WITHIN = 300.0


class Sample(NamedTuple):
    """What was measured at a moment."""

    at: float
    rss: tuple[int, ...]
    ended: int
    server_bytes: int
    keys: int


class Acknowledged(NamedTuple):
    """A message that the server has acknowledged to its sender."""

    id: str
    ends: set[str]
    tries: int
    how: str


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 1_200)
def test_every_message_of_a_mixed_soak_is_accounted_for_and_memory_is_flat(tmp_path: Path) -> None:
    """What a sender was told is stored ends once, as it must, whatever is killed, stopped and started meanwhile."""
    variables = {
        "WORKER_LEASE": "4s",
        "WORKER_MAX_CRASHES": "100",
        "WORKER_GRACE": "2s",
        "WORKER_LOG_LEVEL": "warning",
    }
    with scene(tmp_path, **variables) as opened:
        (tmp_path / "open").touch()
        for name in STEADY:
            opened.start_ready(name, variables={"WORKER_CONCURRENCY": "20"})
        with senders(opened) as all_of_them:
            samples = disturb(opened)
            (tmp_path / "stop").touch()
            for one in all_of_them:
                assert one.wait(TIMEOUT) == 0, opened.explain()
        sent = [one for number in range(SENDERS) for one in acknowledged(tmp_path / f"sent-{number}")]
        opened.wait_for_end(len(sent), SETTLES_WITHIN)
        sys.stdout.write(told(opened, sent, samples) + "\n")
        account(opened, sent)
        memory_is_flat(samples)


# ---------------------------------------------------------------------- what happens


@contextlib.contextmanager
def senders(opened: Scene) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The programs that send."""
    started = []
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        for number in range(SENDERS):
            words = [sys.executable, "-m", "tests.support.soak_sender"]
            words += [str(opened.folder), opened.url, str(number), str(PAUSE)]
            with (opened.folder / f"sender-{number}.log").open("ab") as log:
                started.append(subprocess.Popen(words, cwd=opened.folder, env=environment, stdout=log, stderr=log))
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()


def disturb(opened: Scene) -> list[Sample]:
    """Ends and starts workers and the server until the time is over; what was measured meanwhile."""
    drawn = random.Random(1)
    workers, servers = cycle([kill, terminate]), cycle([opened.server.kill, opened.server.shut_down])
    began = time.monotonic()
    next_worker, next_server = began, began + SERVER_EVERY / 2
    samples: list[Sample] = []
    while (now := time.monotonic()) < began + SECONDS:
        if now >= next_server:
            next(servers)()
            time.sleep(drawn.uniform(0.2, 3))
            opened.server.start()
            next_server = time.monotonic() + SERVER_EVERY
        if now >= next_worker:
            next(workers)(opened, drawn.choice(VICTIMS))
            next_worker = time.monotonic() + WORKER_EVERY
        samples.append(measured(opened, time.monotonic() - began))
        more, over = samples[-1].ended + 20, began + SECONDS
        wait_until(lambda: opened.ended() >= more or time.monotonic() >= over)  # noqa: B023 - called at once
    return samples


def kill(opened: Scene, name: str) -> None:
    """As `kill -9` does; another begins at once."""
    if name in opened.workers:
        opened.workers[name].kill()
    opened.start(name, variables={"WORKER_CONCURRENCY": "10"})


def terminate(opened: Scene, name: str) -> None:
    """As a deployment does; another begins when it has ended."""
    if name in opened.workers:
        opened.workers[name].terminate()
        opened.workers[name].process.wait(TIMEOUT)
    opened.start(name, variables={"WORKER_CONCURRENCY": "10"})


def measured(opened: Scene, at: float) -> Sample:
    about: Any = opened.client.info("memory")
    rss = tuple(opened.workers[name].tells()["rss"] for name in STEADY)
    return Sample(at, rss, opened.ended(), about["used_memory"], opened.client.dbsize())


# ---------------------------------------------------------------------- the account


def acknowledged(ledger: Path) -> list[Acknowledged]:
    lines = [line.split() for line in ledger.read_text().splitlines()]
    return [Acknowledged(id_, set(ends.split(",")), int(tries), how) for id_, ends, tries, how in lines]


def account(opened: Scene, sent: list[Acknowledged]) -> None:
    """Each message has one end, the right one; what it should have done was done, and nothing is left behind."""
    opened.sent_again |= {one.id for one in sent if one.tries > 1}
    messages = settled(opened, [one.id for one in sent])
    ends = {one.id: messages[one.id].state for one in sent}
    wrong = Counter((messages[one.id].actor, one.how, ends[one.id]) for one in sent if ends[one.id] not in one.ends)
    assert not wrong, f"ends that are not the right ones: {dict(wrong)}"
    begun = Counter(run.message_id for run in opened.ledger("began"))
    at_most_once = [one.id for one in sent if one.ends == {"completed", "dead"} and one.id not in opened.sent_again]
    assert all(begun[one] <= 1 for one in at_most_once)


def memory_is_flat(samples: list[Sample]) -> None:
    """Of the workers that lived through it, and of the server for each message that it keeps."""
    second, last = fifth(samples, 1), fifth(samples, 4)
    for number in range(len(STEADY)):
        before, after = (statistics.mean(one.rss[number] for one in some) for some in (second, last))
        assert after < before + 5 * MEGABYTE, f"{STEADY[number]}: from {before:,.0f} to {after:,.0f} bytes"
    for each in (bytes_each, keys_each):
        before, after = (statistics.mean(map(each, some)) for some in (second, last))
        assert after < 1.1 * before, f"from {before:,.2f} to {after:,.2f} for each message"


def bytes_each(one: Sample) -> float:
    """What the server holds for each message that has ended."""
    return one.server_bytes / max(1, one.ended)


def keys_each(one: Sample) -> float:
    return one.keys / max(1, one.ended)


def fifth(samples: list[Sample], number: int) -> list[Sample]:
    size = len(samples) // 5
    return samples[number * size : (number + 1) * size]


def told(opened: Scene, sent: list[Acknowledged], samples: list[Sample]) -> str:
    """The figures, for people."""
    lines = [f"{len(sent)} messages, {sum(one.tries > 1 for one in sent)} sent again, {dict(opened.states())}"]
    for number in (1, 4):
        some = fifth(samples, number)
        rss = [f"{statistics.mean(one.rss[each] for one in some) / MEGABYTE:.1f} MB" for each in range(len(STEADY))]
        size, keys = statistics.mean(map(bytes_each, some)), statistics.mean(map(keys_each, some))
        lines.append(f"fifth {number + 1}: workers {', '.join(rss)}; {size:,.0f} bytes and {keys:.3f} keys a message")
    return "\n".join(lines)
