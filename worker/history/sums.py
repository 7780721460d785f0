"""The counters of each actor since its first attempt: numbers that only grow, for monitoring systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.history.query import Question
from worker.server.scripts import Script

_SUMS = Script("sums")


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

    def add(self, what: str, number: int) -> None:
        """Adds to the counter that the scripts call `what`."""
        histogram: Mapping[str, dict[int, int]] = {"d": self.durations, "q": self.waits}
        if what[:1] in histogram and what[1:].isdecimal():
            histogram[what[0]][int(what[1:])] = number
        elif what == "blocked":
            self.blocked_ms = number
        else:
            self.ended[what] = number


def actor_sums() -> Question[tuple[ActorSums, ...]]:
    """The counters of all attempts of each actor, ordered by name."""

    def read(answer: list[Any]) -> tuple[ActorSums, ...]:
        found: dict[str, ActorSums] = {}
        for name, number in zip(answer[::2], answer[1::2], strict=True):
            actor, _, what = name.decode().partition("\t")
            found.setdefault(actor, ActorSums(actor)).add(what, int(number))
        return tuple(found[actor] for actor in sorted(found))

    return Question(_SUMS, [], read)
