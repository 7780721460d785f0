"""Makes of a URL the primary that connections look for: with sentinels, with a cluster, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.server.cluster import NodeOfSlot
from worker.server.informants import Informants
from worker.server.keys import Namespace
from worker.server.primary import Primary
from worker.server.sentinels import WatchedPrimary
from worker.server.urls import ServerUrl

_TO_ASK_SENTINELS = (
    "write the sentinels' own user and password into WORKER_REDIS_URL: ?sentinel_username=…&sentinel_password=…"
)
_TO_ASK_NODES = (
    "write redis:// in place of redis+cluster:// if it is no cluster; else give its user the right to CLUSTER SLOTS"
)


def primary_of(url: ServerUrl, options: Mapping[str, Any], namespace: Namespace, bound: float) -> Primary | None:
    """The primary to look for, or None where it is at the URL's own place.

    Args:
        url: The URL.
        options: The options of connections to the primary; those of TLS and sockets hold for sentinels and nodes too.
        namespace: The namespace, which decides the node of a cluster.
        bound: Seconds that a look-up may take.
    """
    own = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_"))}
    is_tls = url.scheme == "rediss"
    if url.sentinels is not None:
        places, name, user = url.sentinels
        sentinels = Informants("sentinel", places, own | user, remedy=_TO_ASK_SENTINELS, bound=bound, is_tls=is_tls)
        return WatchedPrimary(sentinels, name)
    if url.nodes:
        own |= {name: options[name] for name in ("username", "password") if name in options}
        nodes = Informants("node", url.nodes, own, remedy=_TO_ASK_NODES, bound=bound, is_tls=is_tls)
        return NodeOfSlot(nodes, namespace)
    return None
