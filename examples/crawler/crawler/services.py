"""The work itself: plain asyncio, callable from a script or a test just as well as from an actor."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from worker import NoContentFound, RetryLater, loop_resource

CONNECTIONS = 100
TIMEOUT = 30.0
BUSY_FOR = 10.0
"""The delay before a retry when the site is busy and does not say for how long."""


@loop_resource
async def http_client() -> AsyncIterator[httpx.AsyncClient]:
    """The one client of this process, which keeps its connections open."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT) as client:
        yield client


async def fetch(url: str) -> str:
    """Fetches a page.

    Raises:
        NoContentFound: There is no such page.
        RetryLater: The site is busy.
        httpx.HTTPError: The site does not answer, or answers with another error.
    """
    client = await http_client()
    response = await client.get(url)
    if response.status_code == httpx.codes.NOT_FOUND:
        raise NoContentFound(f"there is no page {url}")
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise RetryLater(float(response.headers.get("Retry-After", BUSY_FOR)), "the site is busy")
    return response.raise_for_status().text
