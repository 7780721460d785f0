"""Slows down visitors who guess tokens: each wrong one is answered later than the one before, and written down.

A right token is never delayed, and nobody waits for another's wrong ones. Only a visitor from an address that has
several guesses waiting is refused unread, so that guessing at many tokens at once is no faster.
"""

from __future__ import annotations

import ipaddress
import time
from asyncio import sleep
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from worker.operations.audit import LOG_IN_REFUSED, aaudit
from worker.server.async_client import AsyncRedisClient
from worker.web.direct import address_of

AT_ONCE = 5
"""Wrong tokens from one address that wait for their answers; meanwhile no other is read."""

LONGEST = 8.0
"""Seconds until the answer, at most."""

_FREE = 2
_FIRST = 0.25
_FORGOTTEN_AFTER = 900.0
_MOST_ADDRESSES = 10_000
_MOST_WAITING = 100
"""Answers that wait, of all addresses: each is an open connection."""

_NETWORK_BITS = 64


@dataclass(slots=True)
class _Failures:
    number: int = 0
    waiting: int = 0
    last: float = 0.0


class Guesses:
    """The wrong tokens of each address, as far as this process has seen them.

    Args:
        redis_client: Opens the client of the running loop, for the audit log.
    """

    def __init__(self, redis_client: Callable[[], Awaitable[AsyncRedisClient]]) -> None:
        self._redis_client = redis_client
        self._of: OrderedDict[str, _Failures] = OrderedDict()
        self._waiting = 0

    def may_try(self, address: str) -> bool:
        """Whether a token from this address is read now."""
        known = self._of.get(_network(address))
        return known is None or known.waiting < AT_ONCE

    async def failed(self, address: str, by: str, how: str) -> None:
        """Writes a wrong token into the audit log, and returns when it may be answered.

        Args:
            address: The visitor's address.
            by: The visitor's name in the audit log.
            how: The way in which the token was sent.
        """
        known = self._known(_network(address))
        known.number += 1
        known.last = time.monotonic()
        known.waiting += 1
        self._waiting += 1
        try:
            # The first, second, fourth, eighth …: guesses must not fill the log.
            if known.number & (known.number - 1) == 0:
                since = known.number - known.number // 2
                await aaudit(self._redis_client, LOG_IN_REFUSED, how, by=by, count=since)
            if self._waiting <= _MOST_WAITING:
                await sleep(_delay(known.number))
        finally:
            known.waiting -= 1
            self._waiting -= 1

    def _known(self, network: str) -> _Failures:
        known = self._of.get(network)
        if known is None or (not known.waiting and time.monotonic() - known.last > _FORGOTTEN_AFTER):
            known = self._of[network] = _Failures()
        self._of.move_to_end(network)
        if len(self._of) > _MOST_ADDRESSES:
            self._of.popitem(last=False)
        return known


def _delay(number: int) -> float:
    """Seconds until the answer to the wrong token of this number."""
    return min(_FIRST * 2.0 ** min(number - _FREE - 1, 10), LONGEST) if number > _FREE else 0.0


def _network(address: str) -> str:
    """The address, without the part of an IPv6 address that one visitor can change at will."""
    found = address_of(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found), _NETWORK_BITS), strict=False))
    return address
