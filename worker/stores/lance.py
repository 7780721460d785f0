"""Loads LanceDB at its first use. That takes a second, and must never happen on a loop."""

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

_NICER = 10
"""The niceness of LanceDB's threads, as the command `nice` sets it: a search gives way to every busy loop."""


def load_lancedb() -> None:
    """Loads the modules of LanceDB that we use, and starts its threads; it blocks.

    Raises:
        MissingExtra: LanceDB is not installed.
    """
    for module in ("lancedb", "lancedb.index", "lancedb.query", "lancedb.expr"):
        lance(module)
    _begin_threads()


@functools.cache
def _begin_threads() -> None:
    """Starts LanceDB's threads from a thread with a higher niceness, which they inherit, so that loops go first."""
    # A real one also under gevent: the callers are threads of the pool.
    thread = threading.Thread(target=_begin_nicely, name="lancedb", daemon=True)
    thread.start()
    thread.join()


def _begin_nicely() -> None:
    if sys.platform == "linux":  # other systems have a niceness for processes, not for threads
        me = threading.get_native_id()
        with contextlib.suppress(OSError):  # a sandbox may forbid it: then all threads are equal
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + _NICER)
    asyncio.run(_connect_to_nothing())


async def _connect_to_nothing() -> None:
    (await lance("lancedb").connect_async("memory://")).close()


def lance(module: str) -> Any:  # noqa: ANN401 - a module
    """A module of LanceDB.

    Raises:
        MissingExtra: LanceDB is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra("recall", "the search index") from error


@functools.cache
def shared_caches() -> Any:  # noqa: ANN401 - a type of a module that is loaded later
    """LanceDB's caches of its files: bounded, and shared by all indexes that this process opens."""
    return lance("lancedb").Session(index_cache_size_bytes=128 * 2**20, metadata_cache_size_bytes=32 * 2**20)
