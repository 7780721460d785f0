"""Records and logs the stalls of the web process's loop, during which it answers no request."""

from __future__ import annotations

import asyncio

from worker.ground.logs import get_logger
from worker.loops.account import Blocked
from worker.loops.watchdog import watch

logger = get_logger(__name__)

LOOK_EVERY = 1.0


async def watch_this_loop(blocked: Blocked) -> None:
    """Adds up the stalls of the running loop, until it is cancelled; `WORKER_BLOCKING=off` turns it off."""
    turns = watch(asyncio.get_running_loop())
    while turns is not None:
        await asyncio.sleep(LOOK_EVERY)
        found = turns.stop()
        if found is not None:
            blocked.add_all(found)
            logger.warning("the loop of the web was blocked", seconds=round(found.seconds, 3), where=found.where)
