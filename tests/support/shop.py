"""The actors of the dashboard's tests; what they wait for are files in the folder of the test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import dramatiq

from worker import Fatal, ProcessingStatusContext, RetryLater, actor, create_broker, run_async_in_new_loop

dramatiq.set_broker(create_broker())

FOLDER = Path(os.environ.get("SHOP_FOLDER", "."))
HOSTILE = """</pre><script>document.title = "owned"</script><img src=x onerror="document.title='owned'">&amp;"""


async def take_steps(gate: str, progress: Callable[[int, int, str], None]) -> None:
    async with ProcessingStatusContext("pick"):
        await asyncio.sleep(0.05)
    steps = 0
    while not (FOLDER / gate).exists():
        steps = min(steps + 1, 80)
        progress(steps, 80, "boxes")
        await asyncio.sleep(0.05)


@dramatiq.actor(max_retries=0)
def deliver(gate: str) -> None:
    """Tells how far it is, until it may end."""
    with ProcessingStatusContext("deliver", gate=gate) as status:
        run_async_in_new_loop(take_steps(gate, status.progress))
        status.set_exit_message("80 boxes")


@actor(subject=("order",), max_retries=1)
async def bill(order: str) -> None:
    """Fails twice, until somebody mends it."""
    await asyncio.sleep(0.02)
    if not (FOLDER / f"mended-{order}").exists():
        raise ValueError(f"no address for {order}")


@actor(subject=("carrier",), max_retries=1)
async def collect(carrier: str) -> None:
    """Asks for a later time, which does not come in a test."""
    raise RetryLater(timedelta(hours=1), f"{carrier} asks for patience")


@actor(subject=("name",), max_retries=0)
async def greet(name: str) -> None:
    """Dies of an error that would be markup."""
    raise Fatal(f"{HOSTILE} {name}")


@actor(subject=("shelf",))
async def count(shelf: str) -> None:
    """Goes on until it is cancelled."""
    await asyncio.Event().wait()


@actor(subject=("parcel",), queue_name="parcels")
def post(parcel: int) -> None:
    """Quick, on a queue of its own."""
