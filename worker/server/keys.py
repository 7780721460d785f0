"""The keys of a namespace, as far as Python names them; `lua/keys.lua` makes all that scripts use."""

from __future__ import annotations


class Namespace:
    """What separates one environment from another on the same server: it names the keys.

    Args:
        name: As in `WORKER_NAMESPACE`.
    """

    def __init__(self, name: str) -> None:
        # In braces: a cluster puts all of a namespace into one slot.
        self.prefix = f"{{{name}}}:"
        self.due = f"{self.prefix}due"
        self.layout = f"{self.prefix}layout"
        self.orders = f"{self.prefix}orders"
        self.tail = f"{self.prefix}events"
        self.wake = f"{self.prefix}wake"

    def stream(self, queue: str, lane: str) -> str:
        """The stream in which entries of a queue wait."""
        return f"{self.prefix}q:{queue}:{lane}"

    def queue_of(self, stream: str) -> str:
        """The queue whose stream that is."""
        return stream.removeprefix(f"{self.prefix}q:").rpartition(":")[0]

    def of_dramatiq(self, key: str) -> str:
        """What one of Dramatiq's own backends calls `key`."""
        return f"{self.prefix}dramatiq:{key}"
