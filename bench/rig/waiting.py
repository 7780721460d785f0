"""Measurements of coroutines that wait, as those do that call other services: how many at once, and at what cost."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from contenders import UNLIMITED, Contender
from contenders.stamps import Stamps

from rig.running import Bench, Failed, Figures, Size, until_all
from rig.server import Usage, Workers

FIRST_LOOK = 0.002
START_TIMEOUT = 60.0
SETTLE = 0.25
MOST = 0.99


class Load(NamedTuple):
    """Messages of which each waits.

    Attributes:
        messages: The number of messages.
        seconds: The time for which each waits.
        at_once: How many may wait at once in the one process; None: as many as the contender takes as shipped.
    """

    messages: int
    seconds: float
    at_once: int | None

    def __str__(self) -> str:
        """As a heading says it."""
        bound = {None: "as shipped", UNLIMITED: "unlimited"}.get(self.at_once, f"{self.at_once} at once")
        return f"{self.messages:,} messages that wait {self.seconds:g} s, {bound}"


LOADS = {
    "2000x100ms_shipped": Load(2_000, 0.1, None),
    "2000x100ms_500": Load(2_000, 0.1, 500),
    "2000x100ms_unlimited": Load(2_000, 0.1, UNLIMITED),
    "10000x1s_shipped": Load(10_000, 1, None),
    "10000x1s_unlimited": Load(10_000, 1, UNLIMITED),
    # None ever has so many of these at once: room for more only costs.
    "10000x10ms_1000": Load(10_000, 0.01, 1_000),
    "2000x5s_unlimited": Load(2_000, 5, UNLIMITED),
}
QUICK = ("2000x100ms_shipped", "2000x100ms_500")


def waiting(bench: Bench, contender: Contender, size: Size, load: Load) -> Figures:
    """Drains the messages with one process, for `size.seconds` at most: a bound that only small caps reach.

    All are enqueued first. The time is that from the first line of the first message to the last line of the last, or
    to the bound. The rate counts up to the end of 99 in a hundred, if so many ended: ArdiQ, with room for thousands,
    leaves a few that it has taken until it claims them back after a minute.
    """
    at_once = min(load.at_once or contender.as_shipped or contender.at_once, contender.most)
    stamps = bench.begin(load.messages)
    bench.drive(contender, "fill")
    megabytes = 0.0
    with bench.workers(contender, at_once=at_once, BENCH_SECONDS=str(load.seconds)) as workers:
        first = _first_usage(stamps, workers)
        for _ in until_all(stamps.ended, stamps.count, workers):
            megabytes = max(megabytes, workers.megabytes(stamps.ran_by))
            if time.monotonic_ns() - first.at > size.seconds * 1e9:
                break
        ended = sorted(at for at in stamps.ended_at if at)
        if len(ended) == stamps.count:
            time.sleep(SETTLE)  # the last are acknowledged
        last = workers.usage()
    if not ended:
        raise Failed(f"no message of {load.messages} ended")
    begin = min(at for at in stamps.ran_at if at)
    most = math.ceil(stamps.count * MOST)
    counted, end = (most, ended[most - 1]) if len(ended) >= most else (len(ended), last.at)
    per_second = counted / (end - begin) * 1e9
    return {
        "at_once": at_once,
        "ended": len(ended),
        "seconds": ((ended[-1] if len(ended) == stamps.count else last.at) - begin) / 1e9,
        "per_second": per_second,
        "worker_us": last.workers_since(first) / len(ended) * 1e6,
        "server_us": (last.server - first.server) / len(ended) * 1e6,
        "mb": megabytes,
        "per_second_per_mb": per_second / megabytes,
    }


def _first_usage(stamps: Stamps, workers: Workers) -> Usage:
    """The CPU up to the first message: what it takes to start is not counted."""
    deadline = time.monotonic() + START_TIMEOUT
    while not stamps.ran():
        if workers.ended() or time.monotonic() > deadline:
            raise Failed("no message began")
        time.sleep(FIRST_LOOK)
    return workers.usage()
