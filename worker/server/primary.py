"""The port by which connections ask for the place of a primary that may change, each time before they connect.

A server with a URL of its own needs none of this. Sentinels and clusters tell the place of theirs.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """The place of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Primary(Protocol):
    """The primary of several servers.

    Attributes:
        last: The place that was found last, or None before the first.
    """

    last: Place | None

    def find(self) -> Place:
        """Asks for the place of the primary, within the bound of this thread's call.

        Raises:
            redis.ConnectionError: Nobody tells it now.
            redis.ResponseError: All that know it refuse to tell it.
        """
        ...
