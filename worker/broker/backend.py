"""Dramatiq's own backends on our server. They must never write a key outside of our namespace."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq.encoder import Encoder
from dramatiq.rate_limits.backends import RedisBackend
from dramatiq.results.backends import RedisBackend as ResultsBackend

from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.settings import Settings


class NamespacedResults(ResultsBackend):  # type: ignore[misc]
    """Dramatiq's own backend of results, but each key begins with the client's namespace.

    Args:
        client: A client of the server, or None for one with the settings of this process.
        encoder: The encoder of results, or None for Dramatiq's.
    """

    def __init__(self, client: RedisClient | None = None, *, encoder: Encoder | None = None) -> None:
        client = client or connect(Settings.in_force())
        place = client.namespace.of_dramatiq("results")
        super().__init__(client=client, encoder=encoder, namespace=place, use_namespace_prefix_keys=True)


class NamespacedBackend(RedisBackend):  # type: ignore[misc]
    """Dramatiq's own backend of rate limits and barriers, but each key begins with the client's namespace.

    Args:
        client: A client of the server, or None for one with the settings of this process.
    """

    def __init__(self, client: RedisClient | None = None) -> None:
        client = client or connect(Settings.in_force())
        super().__init__(client=client)
        self._key = client.namespace.of_dramatiq

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Sets a counter, unless it exists; times are in milliseconds."""
        return bool(super().add(self._key(key), value, ttl))

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Adds to a counter, up to a maximum."""
        return bool(super().incr(self._key(key), amount, maximum, ttl))

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Takes from a counter, down to a minimum."""
        return bool(super().decr(self._key(key), amount, minimum, ttl))

    def incr_and_sum(self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int) -> bool:
        """Adds to one of several counters, up to a maximum of all of them."""

        def ours() -> list[str]:
            return [self._key(one) for one in keys()]

        return bool(super().incr_and_sum(self._key(key), ours, amount, maximum, ttl))

    def wait(self, key: str, timeout: int | None) -> bool:
        """Waits for a notification."""
        return bool(super().wait(self._key(key), timeout))

    def wait_notify(self, key: str, ttl: int) -> None:
        """Notifies those who wait."""
        super().wait_notify(self._key(key), ttl)
