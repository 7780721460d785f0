"""Rates of actors, read and written beside the loop: ten thousand of them would hold it for half a second."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from fastapi.responses import Response

from worker.ground.json_values import compact
from worker.history.answers import ActorRates
from worker.history.overview import actor_rates
from worker.history.query import ask
from worker.loops.thread_pool import run_in_thread_pool
from worker.server.client import RedisClient

MOST_SHOWN = 100
"""The most actors in a table."""

MOST_NAMED = 1_000
"""The most actors that a form suggests."""


class Busiest(NamedTuple):
    """The busiest actors.

    Attributes:
        rates: The rates of those that a table shows, the busiest first.
        left_out: The number of those that it does not show.
        names: The names that a form suggests, sorted.
    """

    rates: tuple[ActorRates, ...]
    left_out: int
    names: list[str]


async def busiest(client: RedisClient, over: timedelta) -> Busiest:
    """The busiest actors over a time that ends now.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    return await run_in_thread_pool(_busiest, client, over)


async def all_rates(client: RedisClient, over: timedelta) -> Response:
    """The rates of all actors as JSON, an `Actors`.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    return Response(await run_in_thread_pool(_as_json, client, over), media_type="application/json")


def _busiest(client: RedisClient, over: timedelta) -> Busiest:
    found = ask(client, actor_rates(over))
    names = sorted(one.actor for one in found[:MOST_NAMED] if one.actor)
    return Busiest(found[:MOST_SHOWN], max(0, len(found) - MOST_SHOWN), names)


def _as_json(client: RedisClient, over: timedelta) -> bytes:
    # One at a time: the encoder lets no other thread run while it is at work.
    written = ",".join(compact(one) for one in ask(client, actor_rates(over)))
    return f'{{"actors":[{written}]}}'.encode()
