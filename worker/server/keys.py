"""The keys of a namespace that Python uses; `lua/keys.lua` makes all keys for scripts."""

from __future__ import annotations

from urllib.parse import quote

SUSPECT, LOST = "suspect", "lost"
"""The priorities of messages that dead processes had: more than once, and once."""

PRIORITIES = (SUSPECT, LOST, "back", "high", "normal", "low")
"""Priorities in order, the most urgent first; `back` is for messages that were given back."""

THREAD = "thread"
"""The runner of messages that worker threads run."""


LOOP = "loop"
"""The runner of messages that the process's shared loop runs, without a thread of their own."""


def runner_of_actor(actor: str) -> str:
    """The runner that runs this actor only."""
    # A colon separates the parts of a stream's name.
    return f"{LOOP}.{quote(actor, safe='')}"


class Namespace:
    """A namespace: it names the keys, and so separates environments on one server.

    Args:
        name: The name, as in `WORKER_NAMESPACE`.
    """

    def __init__(self, name: str) -> None:
        # In braces, so that a cluster puts all keys of a namespace into one slot.
        self.prefix = f"{{{name}}}:"
        self.due = f"{self.prefix}due"
        self.layout = f"{self.prefix}layout"
        self.orders = f"{self.prefix}orders"
        self.tail = f"{self.prefix}events"
        self.wake = f"{self.prefix}wake"

    def stream(self, queue: str, priority: str, runner: str) -> str:
        """The stream of a queue's entries with this priority and runner."""
        return f"{self.prefix}q:{queue}:{priority}:{runner}"

    def queue_of(self, stream: str) -> str:
        """The queue of this stream."""
        return stream.removeprefix(f"{self.prefix}q:").rsplit(":", 2)[0]

    def of_dramatiq(self, key: str) -> str:
        """The key that stands for `key` of one of Dramatiq's own backends."""
        return f"{self.prefix}dramatiq:{key}"
