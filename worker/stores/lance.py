"""LanceDB, loaded when it is needed: that takes a second, and must never happen on a loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import sys
import threading
from typing import Any

from worker.errors import MissingExtra
from worker.threads.os_threads import start_thread

_NICER = 10
"""As much as the command `nice`: what a search computes waits for every loop that has something to do."""


def load_lancedb() -> None:
    """Loads all of it that is used, and begins its threads; it blocks.

    Raises:
        MissingExtra: It is not installed.
    """
    for module in ("lancedb", "lancedb.index", "lancedb.query", "lancedb.expr"):
        lance(module)
    _begin_threads()


@functools.cache
def _begin_threads() -> None:
    """Has its threads let the loops of this process go first: each is as nice as the one that begins it."""
    start_thread(_begin_nicely, "lancedb").join()


def _begin_nicely() -> None:
    if sys.platform == "linux":  # elsewhere processes are nice, not threads
        me = threading.get_native_id()
        with contextlib.suppress(OSError):  # where a sandbox forbids it, all are equal
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + _NICER)
    asyncio.run(_connect_to_nothing())


async def _connect_to_nothing() -> None:
    (await lance("lancedb").connect_async("memory://")).close()


def lance(module: str) -> Any:  # noqa: ANN401 - a module
    """One of its modules.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra("recall", "the search index") from error


@functools.cache
def shared_caches() -> Any:  # noqa: ANN401 - a type of a module that is loaded when it is needed
    """What LanceDB remembers of its files: shared by all that this process opens, and bounded."""
    return lance("lancedb").Session(index_cache_size_bytes=128 * 2**20, metadata_cache_size_bytes=32 * 2**20)
