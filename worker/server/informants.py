"""Asks servers that know the place of the primary, one after another, until one tells it; keeps no connection to them.

Each question begins with another of them, because one that is cut off from the others goes on telling what it knew.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.server.bounds import seconds_left, within
from worker.server.primary import Place
from worker.server.wires import Generations, TlsWire, Wire

LONGEST_ASK = 1.0
"""Seconds after which one that does not answer is left, and the next is asked."""

ASKED_LAST_FOR = 10.0
"""Seconds for which one that did not answer is asked after the others."""


class InformantsRefuseError(redis.ResponseError):
    """All who know the place of the primary answer, and refuse to tell it.

    Attributes:
        remedy: An instruction.
    """

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.remedy = remedy


class Informants:
    """Servers of which each can tell the place of the primary.

    Args:
        kind: The word for them in errors, such as `sentinel`.
        remedy: The instruction for people whom they refuse to tell anything.
        places: Their places.
        options: Options of the connections to them, besides the place.
        bound: Seconds that a question to all of them may take.
        is_tls: Whether they are reached over TLS.
    """

    def __init__(
        self,
        kind: str,
        places: Iterable[Place],
        options: Mapping[str, object],
        *,
        remedy: str,
        bound: float,
        is_tls: bool,
    ) -> None:
        self._kind = kind
        self._remedy = remedy
        self._given = tuple(places)
        self._places = self._given
        self._options = options
        self._bound = bound
        self._connection: type[Wire | TlsWire] = TlsWire if is_tls else Wire
        self._turns = itertools.count()
        self._silent_until: dict[Place, float] = {}

    def learn(self, places: Iterable[Place]) -> None:
        """Asks these too from now on, beside those that were given at first."""
        self._places = tuple(dict.fromkeys((*self._given, *places)))

    def ask(self, words: Sequence[str], read: Callable[[Any, Place], Place]) -> Place:
        """The place that the first of them tells.

        Args:
            words: The question.
            read: Reads the answer of the one at a place; raises a `redis.ConnectionError` if it tells nothing.

        Raises:
            redis.ConnectionError: None tells it.
            InformantsRefuseError: All refuse to tell anything.
        """
        places = self._in_order()
        failures: list[tuple[Place, Exception]] = []
        with within(self._bound):
            for count, place in enumerate(places):
                try:
                    with within(min(LONGEST_ASK, seconds_left() / (len(places) - count))):
                        found = read(self._answer(place, words), place)
                except (redis.RedisError, OSError) as error:
                    self._silent_until[place] = time.monotonic() + ASKED_LAST_FOR
                    failures.append((place, error))
                else:
                    self._silent_until.pop(place, None)
                    return found
        raise self._failure(failures)

    def _in_order(self) -> list[Place]:
        """All places, those last that were silent a moment ago."""
        places = self._places
        turn = next(self._turns) % len(places)
        now = time.monotonic()
        return sorted((*places[turn:], *places[:turn]), key=lambda place: self._silent_until.get(place, 0.0) > now)

    def _answer(self, place: Place, words: Sequence[str]) -> Any:  # noqa: ANN401 - as the server answers
        connection: Any = self._connection(
            host=place.host,
            port=place.port,
            generations=Generations(),
            retry=Retry(NoBackoff(), 0),
            client_name="worker",
            **self._options,
        )
        try:
            connection.connect()
            connection.send_command(*words)
            return connection.read_response()
        finally:
            connection.disconnect()

    def _failure(self, failures: Sequence[tuple[Place, Exception]]) -> redis.RedisError:
        told = "; ".join(sorted(f"{place}: {' '.join(str(error).split())}" for place, error in failures))
        said = f"no {self._kind} tells where the primary is: {told}"
        if all(isinstance(error, (redis.ResponseError, redis.AuthenticationError)) for _, error in failures):
            return InformantsRefuseError(said, self._remedy)
        return redis.ConnectionError(said)
