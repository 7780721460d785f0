"""The primary that sentinels watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from worker.server.informants import Informants
from worker.server.primary import Place, Primary
from worker.server.urls import ServerUrl

_TO_ASK = "write the sentinels' own user and password into WORKER_REDIS_URL: ?sentinel_username=…&sentinel_password=…"


def primary_of(url: ServerUrl, options: Mapping[str, Any], bound: float) -> Primary | None:
    """The primary to look for, or None where it is at the URL's own place.

    Args:
        url: The URL.
        options: The options of connections to the primary; those of TLS and of sockets hold for sentinels too.
        bound: Seconds that a look-up may take.
    """
    if url.sentinels is None:
        return None
    places, name, user = url.sentinels
    own = {one: value for one, value in options.items() if one.startswith(("socket_", "ssl_"))} | user
    return WatchedPrimary(
        Informants("sentinel", places, own, remedy=_TO_ASK, bound=bound, is_tls=url.scheme == "rediss"), name
    )


class WatchedPrimary:
    """The primary of this name, as the sentinels tell it.

    Args:
        sentinels: The sentinels.
        name: The name under which they watch it.
    """

    def __init__(self, sentinels: Informants, name: str) -> None:
        self._sentinels = sentinels
        self._name = name
        self.last: Place | None = None

    def find(self) -> Place:
        """Asks the sentinels, one after another; see `Primary.find`."""
        self.last = self._sentinels.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name), self._read)
        return self.last

    def _read(self, answer: Any, sentinel: Place) -> Place:  # noqa: ANN401 - as the server answers
        del sentinel
        if answer is None:
            raise redis.ConnectionError(f"it watches no primary named {self._name}")
        return Place(answer[0].decode(), int(answer[1]))
