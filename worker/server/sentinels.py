"""The primary that sentinels watch."""

from __future__ import annotations

from typing import Any

import redis

from worker.server.informants import Informants
from worker.server.primary import Place


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
