"""The rates of very many actors, over HTTP: the loop that answers goes on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from worker.bridge import run_async_in_new_loop
from worker.server.client import RedisClient
from worker.settings import Settings
from worker.web import create_app
from worker.web.rates import MOST_NAMED, MOST_SHOWN

MANY = 10_000
HELD = 0.05
"""Seconds for which the loop may be held; it was half a second and more."""
WINDOWS = {"w": 60_000, "w10": 600_000, "h": 3_600_000, "d": 86_400_000}


@pytest.fixture
def many_actors(client: RedisClient) -> None:
    """Counters as of so many actors: the higher its number, the more attempts."""
    now = time.time() * 1000
    keys = [f"{client.namespace.prefix}{letter}:{int(now // length)}" for letter, length in WINDOWS.items()]
    counters: dict[Any, Any] = {}
    for number in range(MANY):
        counts = {f"d{bucket}": 1 for bucket in range(60, 68)} | {"completed": number + 1, "q50": 8}
        counters |= {f"actor-{number:05}\t{what}": count for what, count in counts.items()}
    client.hset(keys[0], mapping=counters)
    for key in keys[1:]:
        client.copy(keys[0], key)


@pytest.fixture
def as_in_the_web_process() -> Iterator[None]:
    """The collector has nothing to look through but what the requests make."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Gaps:
    """The longest time between two turns of a task, in seconds of this process's work: others may be busy too."""

    def __init__(self) -> None:
        self.longest = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watches while the block runs."""
        ticking = asyncio.ensure_future(self._tick())
        yield
        await asyncio.sleep(0)
        ticking.cancel()

    async def _tick(self) -> None:
        before = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            self.longest = max(self.longest, now - before)
            before = now


@pytest.mark.clock
@pytest.mark.usefixtures("many_actors", "as_in_the_web_process")
@pytest.mark.parametrize("path", ["/api/actors", "/", "/messages"])
def test_ten_thousand_actors_hold_the_loop_for_no_more_than_a_moment(settings: Settings, path: str) -> None:
    """The API answers with all of them; the pages show, and suggest, the busiest, and tell how many they leave out."""
    gaps = Gaps()

    async def asked() -> httpx.Response:
        app = create_app(settings)
        here = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=here, base_url="http://127.0.0.1:8020", timeout=60) as web:
            await web.get("/health/ready")
            async with gaps.watched():
                return await web.get(path)

    answer = run_async_in_new_loop(asked)
    assert answer.status_code == 200
    assert gaps.longest < HELD
    busiest = [f"actor-{number:05}" for number in reversed(range(MANY))]
    if path == "/api/actors":
        assert [one["actor"] for one in answer.json()["actors"]] == busiest
        return
    if path == "/messages":
        assert answer.text.count('<option value="actor-') == MOST_NAMED
        assert f'<option value="{busiest[MOST_NAMED - 1]}">' in answer.text
    else:
        assert answer.text.count('data-key="actor-actor-') == MOST_SHOWN
        assert f"{MANY - MOST_SHOWN:,} less busy actors are not shown" in answer.text.replace("\N{THIN SPACE}", ",")
