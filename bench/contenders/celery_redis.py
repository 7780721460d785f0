"""Celery on Redis, with the prefetch that its guide advises for many short messages, and no results."""

from __future__ import annotations

from collections.abc import Iterable

from celery import Celery

from contenders.stamps import REDIS_URL, stamp

app = Celery("bench", broker=REDIS_URL)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=128,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)


@app.task
def noop(number: int) -> None:
    stamp(number)


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.delay(number)
