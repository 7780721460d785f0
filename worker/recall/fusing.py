"""Makes one ranking of several, by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

CONSTANT = 60
"""The paper's: how little the very first places count for more than those that follow them."""


def fuse(rankings: Iterable[Sequence[K]]) -> list[tuple[K, float]]:
    """Everything that is in any of the rankings, once, with its score, the best first.

    Each ranking adds 1 / (60 + place), and says nothing of what is not in it. Of two that are equal, the one comes
    first that is first in an earlier ranking.
    """
    scores: dict[K, float] = {}
    for ranking in rankings:
        for place, key in enumerate(dict.fromkeys(ranking), start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (CONSTANT + place)
    return sorted(scores.items(), key=lambda one: -one[1])
