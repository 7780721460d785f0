"""What is counted of each actor since the first attempt of all: numbers that only grow, for monitoring systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.history.query import Question
from worker.server.scripts import Script

_SUMS = Script("sums")


@dataclass(slots=True)
class ActorSums:
    """What became of all attempts of an actor.

    Attributes:
        actor: Its name.
        ended: How many attempts ended how: completed, skipped, failed, cancelled, lost.
        durations: How many took how long, by the buckets of `worker.history.histogram`.
        waits: How many messages waited how long from the time they were due, likewise.
        blocked_ms: How long their event loops were blocked, in all.
    """

    actor: str
    ended: dict[str, int] = field(default_factory=dict)
    durations: dict[int, int] = field(default_factory=dict)
    waits: dict[int, int] = field(default_factory=dict)
    blocked_ms: int = 0

    def add(self, what: str, number: int) -> None:
        """Adds a counter as the scripts name it."""
        histogram: Mapping[str, dict[int, int]] = {"d": self.durations, "q": self.waits}
        if what[:1] in histogram and what[1:].isdecimal():
            histogram[what[0]][int(what[1:])] = number
        elif what == "blocked":
            self.blocked_ms = number
        else:
            self.ended[what] = number


def actor_sums() -> Question[tuple[ActorSums, ...]]:
    """What became of all attempts of each actor, by name."""

    def read(answer: list[Any]) -> tuple[ActorSums, ...]:
        found: dict[str, ActorSums] = {}
        for name, number in zip(answer[::2], answer[1::2], strict=True):
            actor, _, what = name.decode().partition("\t")
            found.setdefault(actor, ActorSums(actor)).add(what, int(number))
        return tuple(found[actor] for actor in sorted(found))

    return Question(_SUMS, [], read)
