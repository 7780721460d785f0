"""LanceDB, loaded when it is needed: that takes a second, and must never happen on a loop."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from worker.errors import MissingExtra


def load_lancedb() -> None:
    """Loads all of it that is used; it blocks.

    Raises:
        MissingExtra: It is not installed.
    """
    for module in ("lancedb", "lancedb.index", "lancedb.query", "lancedb.expr"):
        lance(module)


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
