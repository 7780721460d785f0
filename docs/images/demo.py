"""The actors of the screenshots: a shop's background work; some of it fails, is retried, or takes long.

They only wait; the waits and the errors are like those of a real shop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import dramatiq

from worker import (
    Fatal,
    NoContentFound,
    ProcessingStatusContext,
    RetryLater,
    actor,
    create_broker,
    current_attempt,
    run_async_in_new_loop,
)

dramatiq.set_broker(create_broker())


class PaymentRefused(Exception):
    """The bank says no."""


class CarrierUnavailable(Exception):
    """The carrier's API is away."""


def number_of_attempt() -> int:
    attempt = current_attempt()
    return attempt.number if attempt is not None else 1


@actor(subject=("order_id",), max_retries=4)
async def send_invoice(order_id: int) -> None:
    """A quick actor that is refused now and then."""
    await asyncio.sleep(random.lognormvariate(-2.6, 0.6))
    if order_id % 197 == 0:
        raise Fatal(f"order {order_id} has no address")
    if order_id % 31 == 0 and number_of_attempt() == 1:
        raise PaymentRefused(f"the card of order {order_id} was declined")


@actor(subject=("image_id",), queue_name="media")
def resize_image(image_id: int) -> None:
    """A sync actor."""
    time.sleep(random.lognormvariate(-1.6, 0.5))


@actor(subject=("parcel",), max_retries=2)
async def track_parcel(parcel: str) -> None:
    """Asks a carrier that is sometimes away."""
    await asyncio.sleep(random.lognormvariate(-1.9, 0.8))
    chance = random.random()
    if chance < 0.04:
        raise RetryLater(45, "the carrier asks for patience")
    if chance < 0.1:
        raise CarrierUnavailable("503 from api.carrier.example: upstream connect error")
    if chance < 0.2:
        raise NoContentFound("not scanned yet")


async def read_feed(rows: int, progress: Callable[[int, int, str], None]) -> None:
    async with ProcessingStatusContext("download"):
        await asyncio.sleep(1.2)
    for done in range(0, rows, 50):
        progress(done, rows, "rows")
        await asyncio.sleep(0.25)


@dramatiq.actor(queue_name="reports", time_limit=1_200_000)
def import_catalogue(shop: str, rows: int) -> None:
    """A long actor with progress."""
    with ProcessingStatusContext("import_catalogue", "reading the feed", shop=shop) as status:
        run_async_in_new_loop(read_feed(rows, status.progress))
        status.set_exit_message(f"{rows} rows")


async def write_report(number: int, progress: Callable[[int, int, str], None]) -> None:
    async with ProcessingStatusContext("query"):
        await asyncio.sleep(1.4)
    if number == 1:
        raise TimeoutError("the database did not answer within 1.4 s")
    async with ProcessingStatusContext("aggregate"):
        await asyncio.sleep(0.8)
        time.sleep(0.9)  # noqa: ASYNC251 - on purpose: the history tells where the loop was blocked
    if number == 2:
        raise ConnectionResetError("the object store closed the connection")
    async with ProcessingStatusContext("render"):
        for page in range(1, 13):
            progress(page, 12, "pages")
            await asyncio.sleep(0.25)


@dramatiq.actor(queue_name="reports", max_retries=3, min_backoff=6_000, max_backoff=20_000)
def monthly_report(month: str) -> None:
    """Fails twice, and then completes."""
    with ProcessingStatusContext("monthly_report", month=month) as status:
        run_async_in_new_loop(write_report(number_of_attempt(), status.progress))
        status.set_exit_message("12 pages")
