"""The no-op for taskiq with any of its brokers, and the function that sends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from taskiq import AsyncBroker

from contenders.stamps import work


def sender(broker: AsyncBroker) -> Callable[[Iterable[int]], None]:
    """Declares the no-op, and makes the function that sends it singly."""
    noop = broker.task(task_name="noop")(work)

    async def send(numbers: Iterable[int]) -> None:
        await broker.startup()
        for number in numbers:
            await noop.kiq(number)
        await broker.shutdown()

    return lambda numbers: asyncio.run(send(numbers))
