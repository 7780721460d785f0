"""Our broker: a coroutine on a new loop, inside a status context."""

from __future__ import annotations

from collections.abc import Iterable

import dramatiq

from contenders.stamps import stamp
from worker import ProcessingStatusContext, create_broker, run_async_in_new_loop

dramatiq.set_broker(create_broker())


async def service(number: int) -> None:
    stamp(number)


@dramatiq.actor
def noop(number: int) -> None:
    with ProcessingStatusContext("noop"):
        run_async_in_new_loop(service(number))


def enqueue(numbers: Iterable[int]) -> None:
    for number in numbers:
        noop.send(number)
