"""Makes one ranking from several, by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

CONSTANT = 60
"""The constant of the paper: the larger it is, the less the first places differ from the following ones."""


def fuse(rankings: Iterable[Sequence[K]]) -> list[tuple[K, float]]:
    """All entries of the rankings, each once, with its score, the best first.

    Each ranking adds 1 / (60 + place) to its entries. Of two entries with equal scores, the first is the one from an
    earlier ranking, or from an earlier place in it.
    """
    scores: dict[K, float] = {}
    for ranking in rankings:
        for place, key in enumerate(dict.fromkeys(ranking), start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (CONSTANT + place)
    return sorted(scores.items(), key=lambda one: -one[1])
