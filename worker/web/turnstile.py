"""Lets one task through in each turn of the loop, so that it hears of new requests in between; none is refused.

Of hundreds of requests that come at once all would begin in one turn, and of a hundred browsers that follow the live
tail all would be sent what is new: a probe that comes then would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator


class Turnstile:
    """The turnstile of the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Returns when the task may go on: at once, unless another has in this turn; in order."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.call_soon(self._open)
            return
        mine = self._loop.create_future()
        self._waiting.append(mine)
        await mine

    def _open(self) -> None:
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():  # its task was not cancelled
                mine.set_result(None)
                self._loop.call_soon(self._open)
                return
        self._is_closed = False


async def open_turnstile() -> AsyncIterator[Turnstile]:
    """The turnstile of the running loop, as a loop resource."""
    yield Turnstile()
