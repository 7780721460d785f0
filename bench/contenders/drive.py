"""Sends a contender's messages from a process of its own, and prints its figures as JSON.

python -m contenders.drive MODULE enqueue|enqueue_many|fill|latency
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from contenders.stamps import Stamps

START_TIMEOUT = 60.0
SETTLE = 2.0
PAUSE = (0.05, 0.5)


def singly(module: ModuleType, stamps: Stamps) -> dict[str, float]:
    def numbers() -> Iterator[int]:
        for number in range(stamps.count):
            stamps.sent_at[number] = time.monotonic_ns()
            yield number

    module.enqueue(numbers())
    # The first message opens the connection.
    seconds = (time.monotonic_ns() - stamps.sent_at[1]) / 1e9
    return {"per_second": (stamps.count - 1) / seconds}


def together(module: ModuleType, stamps: Stamps) -> dict[str, float]:
    if not hasattr(module, "enqueue_many"):
        return {}
    module.enqueue_many(range(1))
    started = time.monotonic_ns()
    module.enqueue_many(range(1, stamps.count))
    return {"per_second": (stamps.count - 1) / (time.monotonic_ns() - started) * 1e9}


def quickly(module: ModuleType, stamps: Stamps) -> dict[str, float]:
    getattr(module, "enqueue_many", module.enqueue)(range(stamps.count))
    return {}


def now_and_then(module: ModuleType, stamps: Stamps) -> dict[str, float]:
    def numbers() -> Iterator[int]:
        yield 0
        deadline = time.monotonic() + START_TIMEOUT
        while not stamps.ran_at[0]:
            if time.monotonic() > deadline:
                sys.exit("no worker ran the first message")
            time.sleep(0.01)
        time.sleep(SETTLE)
        for number in range(1, stamps.count):
            time.sleep(random.uniform(*PAUSE))
            stamps.sent_at[number] = time.monotonic_ns()
            yield number

    module.enqueue(numbers())
    return {}


def main() -> None:
    _, name, mode = sys.argv
    module = importlib.import_module(f"contenders.{name}")
    stamps = Stamps(Path(os.environ["BENCH_STAMPS"]))
    send = {"enqueue": singly, "enqueue_many": together, "fill": quickly, "latency": now_and_then}[mode]
    print(json.dumps(send(module, stamps)), flush=True)
    # The threads of a core in Rust crash the interpreter now and then while it ends.
    os._exit(0)


if __name__ == "__main__":
    main()
