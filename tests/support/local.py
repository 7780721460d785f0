"""What tests of descriptors and of clients share: a local server, and what is open in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def serving(handle: Handler) -> Iterator[int]:
    """A local server in a thread of its own, until the block ends; its port."""
    loop = asyncio.SelectorEventLoop()
    thread = threading.Thread(target=loop.run_forever, name="local-server")
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(handle, "127.0.0.1", 0)

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def descriptors() -> list[str]:
    """What is open in this process."""
    found = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names, of which one is gone when it is looked at
        with contextlib.suppress(OSError):
            os.fstat(int(name))
            found.append(f"{name}: {_what_is_open(name)}")
    return sorted(found)


def _what_is_open(name: str) -> str:
    # Where the system tells, for whoever reads why a test failed.
    with contextlib.suppress(OSError):
        return str(Path("/dev/fd", name).readlink())
    return "?"
