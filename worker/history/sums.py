"""The counters of each actor since its first attempt: numbers that only grow, for monitoring systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.history.query import Question, ask
from worker.server.client import RedisClient
from worker.server.scripts import Script

_SUMS = Script("sums")

_AT_ONCE = 500


@dataclass(slots=True)
class ActorSums:
    """The counters of all attempts of an actor.

    Attributes:
        actor: The actor's name.
        ended: The number of attempts by the state that ended them.
        durations: The number of attempts by duration, in the buckets of `worker.history.histogram`.
        waits: The number of attempts by the wait of their message since it was due, in the same buckets.
        blocked_ms: Milliseconds for which their event loops were blocked, in all.
    """

    actor: str
    ended: dict[str, int] = field(default_factory=dict)
    durations: dict[int, int] = field(default_factory=dict)
    waits: dict[int, int] = field(default_factory=dict)
    blocked_ms: int = 0

    @property
    def attempts(self) -> int:
        """The number of attempts that ended."""
        return sum(self.ended.values())

    def add(self, what: str, number: int) -> None:
        """Adds to the counter that the scripts call `what`."""
        histogram: Mapping[str, dict[int, int]] = {"d": self.durations, "q": self.waits}
        if what[:1] in histogram and what[1:].isdecimal():
            histogram[what[0]][int(what[1:])] = number
        elif what == "blocked":
            self.blocked_ms = number
        else:
            self.ended[what] = number


def actor_sums(client: RedisClient) -> list[ActorSums]:
    """The counters of all attempts of each actor, the one with the most attempts first.

    It asks in parts, so that the server answers others between them. An attempt that ends meanwhile may be counted in
    some of an actor's counters, and not yet in others.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    found: dict[str, ActorSums] = {}
    cursor = "0"
    while True:
        cursor, fields = ask(client, _part(cursor))
        for name, number in zip(fields[::2], fields[1::2], strict=True):
            actor, _, what = name.decode().partition("\t")
            found.setdefault(actor, ActorSums(actor)).add(what, int(number))
        if cursor == "0":
            return sorted(found.values(), key=lambda one: (-one.attempts, one.actor))


def _part(cursor: str) -> Question[tuple[str, list[bytes]]]:
    return Question(_SUMS, [cursor, _AT_ONCE], lambda answer: (answer[0].decode(), answer[1]))
