"""Dramatiq's own backends on our server. They must never write a key outside of our namespace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.encoder import Encoder
from dramatiq.rate_limits.backends import RedisBackend
from dramatiq.results import ResultFailure, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT
from dramatiq.results.backends import RedisBackend as ResultsBackend

from worker.attempts.run import Cancelled
from worker.history.events import State
from worker.history.query import ask, one_message
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.settings import Settings

_LOOK_EVERY = 1_000
"""Milliseconds between two looks whether a message was cancelled, whose result is waited for."""


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

    def get_result(self, message: dramatiq.Message[Any], *, block: bool = False, timeout: int | None = None) -> Any:  # noqa: ANN401 - as in Dramatiq
        """The result of a message; times are in milliseconds.

        Raises:
            ResultMissing: There is no result yet, and `block` is false.
            ResultTimeout: There was none for `timeout` milliseconds.
            ResultFailure: The message is a dead letter, or was cancelled, before it began or while it ran.
        """
        if not block:
            return super().get_result(message)
        until = time.monotonic() + (DEFAULT_TIMEOUT if timeout is None else timeout) / 1000
        while True:
            left = round((until - time.monotonic()) * 1000)
            try:
                return super().get_result(message, block=True, timeout=max(0, min(left, _LOOK_EVERY)))
            except ResultTimeout:
                # One that never began has no worker that could store a result.
                if self._was_cancelled(message):
                    raise ResultFailure("the message was cancelled", Cancelled.__name__, "on request") from None
                if left <= _LOOK_EVERY:
                    raise

    def _was_cancelled(self, message: dramatiq.Message[Any]) -> bool:
        found = ask(self.client, one_message(message.message_id))
        return found is not None and found.state == State.CANCELLED.value


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
