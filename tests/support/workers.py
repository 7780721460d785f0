"""Workers in the process of the test, which stop when a block ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dramatiq


@contextlib.contextmanager
def idle_worker(broker: dramatiq.Broker, threads: int = 1) -> Iterator[dramatiq.Worker]:
    """A worker that the block starts, when it has declared its actors."""
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=50)
    try:
        yield worker
    finally:
        worker.stop()


@contextlib.contextmanager
def working(broker: dramatiq.Broker, threads: int = 2) -> Iterator[dramatiq.Worker]:
    """A worker that has started."""
    with idle_worker(broker, threads) as worker:
        worker.start()
        yield worker
