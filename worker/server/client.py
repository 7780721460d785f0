"""A client that has its namespace, so that each of its scripts knows its keys, and a bound for each of its calls."""

from __future__ import annotations

from math import inf
from typing import Any

import redis
from redis.client import Pipeline

from worker.server.bounds import within
from worker.server.cluster import NodeOfSlot
from worker.server.keys import Namespace
from worker.server.line import Line
from worker.server.pools import EmbeddedPool
from worker.server.primary import Primary


class RedisClient(redis.Redis):
    """A client of the server, as `connect` makes it.

    Args:
        namespace: The namespace of its scripts.
        bound: Seconds that each of its calls may take as a whole, with connecting and repeated tries.
        primary: The primary that its connections look for, or None where its place is fixed.
        options: The options of redis-py's client.

    Attributes:
        namespace: The namespace of its scripts.
        bound: The bound of its next calls.
        primary: The primary that its connections look for, or None where its place is fixed.
    """

    def __init__(
        self,
        namespace: Namespace,
        *,
        bound: float = inf,
        primary: Primary | None = None,
        **options: Any,  # noqa: ANN401 - redis-py's own
    ) -> None:
        super().__init__(**options)
        self.namespace = namespace
        self.bound = bound
        self.primary = primary

    @property
    def is_in_cluster(self) -> bool:
        """Whether the server is the node of a cluster that has the namespace's slot."""
        return isinstance(self.primary, NodeOfSlot)

    def line(self) -> Line:
        """A connection from the same pool, for the calls of one thread; the caller bounds them.

        Raises:
            redis.RedisError: The connection cannot be made.
        """
        self._start_server()
        return Line(self.namespace, self.connection_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        """Executes a command, within the bound.

        Raises:
            redis.RedisError: The server's or the connection's error.
        """
        self._start_server()
        with within(self.bound + _wait_asked_for(args)):
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """A pipeline that executes its commands within the bound."""
        self._start_server()
        return _BoundedPipeline(self.bound, self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def _start_server(self) -> None:
        # The start of an embedded server has a time of its own, which is no part of a call's.
        pool = self.connection_pool
        if type(pool) is EmbeddedPool:
            pool.start_server()


_WAITING = frozenset({"BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BZPOPMIN", "BZPOPMAX"})
"""Commands with which the caller waits at the server, as Dramatiq's results do: their last word is in seconds."""


def _wait_asked_for(words: tuple[Any, ...]) -> float:
    """The seconds for which this command shall wait at the server, beside the time of the call."""
    return (float(words[-1]) or inf) if words[0] in _WAITING else 0.0


class _BoundedPipeline(Pipeline):
    def __init__(self, bound: float, *args: Any) -> None:  # noqa: ANN401 - redis-py's own
        self._bound = bound
        super().__init__(*args)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with within(self._bound):
            found: list[Any] = super().execute(raise_on_error)
            return found

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's own
        with within(self._bound):
            return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
