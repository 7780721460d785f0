"""The version of keys and formats, and its check on the server."""

from __future__ import annotations

from worker.errors import WorkerError
from worker.server.client import RedisClient

LAYOUT = 2
"""The version that this code reads and writes; `docs/reference/redis.md`."""

_FORMER = ("worker:layout", "worker:seq")
"""Keys of layout 1, which had no namespace."""


def read_layout(client: RedisClient) -> int:
    """The layout of the data on the server; ours if there are no data.

    Raises:
        redis.RedisError: The server's or the connection's error.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.hget(client.namespace.layout, "version")
    if not client.is_in_cluster:  # there never was one with these keys
        pipeline.exists(*_FORMER)
    version, *former = pipeline.execute()
    return 1 if any(former) else int(version or LAYOUT)


def remedy(version: int) -> str:
    """The remedy for data of another layout; empty if it is ours."""
    if version < LAYOUT:
        return "let workers of the former version finish them, or delete them (FLUSHDB), then start workers here"
    return "upgrade dramatiq-bridge here" if version > LAYOUT else ""


def check_layout(client: RedisClient) -> None:
    """Refuses data of another layout.

    Raises:
        WorkerError: The data have another layout; the error is one line with the remedy.
        redis.RedisError: The server's or the connection's error.
    """
    version = read_layout(client)
    if advice := remedy(version):
        raise WorkerError(f"the server's data have layout {version}, this version reads {LAYOUT}: {advice}")
