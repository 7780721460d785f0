"""Refuses a server on which acknowledged messages would be lost; asks it by INFO, and changes nothing.

A process asks once before it first sends, and a worker whenever it begins a lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from worker.errors import ServerRefused
from worker.ground.logs import get_logger
from worker.server.client import RedisClient

logger = get_logger(__name__)

Info = Mapping[str, Any]
"""The server's INFO, as redis-py reads it."""


def check_fitness(client: RedisClient) -> None:
    """Refuses a cluster's node where the URL names no cluster, and a server that evicts messages.

    Logs a policy that evicts unique keys and leases.

    Raises:
        ServerRefused: The server is not fit; the error is one line with the remedy.
        redis.RedisError: The server's or the connection's error.
    """
    try:
        info: Info = client.info("cluster", "memory")
    except redis.exceptions.NoPermissionError:
        logger.warning("the server does not show its INFO: whether it would drop messages is not known")
        return
    if trouble := cluster_trouble(info, expected=client.is_in_cluster) or eviction_trouble(info):
        raise ServerRefused(": ".join(trouble))
    if doubt := eviction_doubt(info):
        logger.warning("the server may drop keys", found=doubt[0], remedy=doubt[1])


def cluster_trouble(info: Info, *, expected: bool) -> tuple[str, str] | None:
    """The trouble with a node of a cluster of which the URL says nothing and its remedy, or None.

    Args:
        info: The server's INFO.
        expected: Whether the URL says that it is a cluster.
    """
    if expected or not info.get("cluster_enabled"):
        return None
    return "the server is a node of a cluster, and another may have the keys at any time", (
        "write redis+cluster://host:6379 into WORKER_REDIS_URL"
    )


def eviction_trouble(info: Info) -> tuple[str, str] | None:
    """The trouble with a server that may drop any key when its memory is full and the remedy, or None."""
    policy = str(info.get("maxmemory_policy", ""))
    if not policy.startswith("allkeys-") or not int(info.get("maxmemory", 0)):
        return None
    return f"the server drops messages when its memory is full (maxmemory-policy {policy})", (
        "set `maxmemory-policy noeviction` on it, or give it no `maxmemory`"
    )


def eviction_doubt(info: Info) -> tuple[str, str] | None:
    """The doubt about a server that may drop keys that expire when its memory is full and the remedy, or None."""
    policy = str(info.get("maxmemory_policy", ""))
    if not policy.startswith("volatile-") or not int(info.get("maxmemory", 0)):
        return None
    return f"unique keys and leases may be dropped when its memory is full (maxmemory-policy {policy})", (
        "set `maxmemory-policy noeviction` on it"
    )
