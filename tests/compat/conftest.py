"""The same program on Dramatiq's own Redis broker and on ours, each on the test's server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.support.brokers import AT_ONCE
from worker import create_broker
from worker.broker.backend import NamespacedResults
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings


class Brokers:
    """Makes brokers of both kinds, with results, and closes them."""

    def __init__(self, settings: Settings, server: EmbeddedServer) -> None:
        self._settings = settings.model_copy(update=AT_ONCE)
        self._url = f"unix://{server.ensure_running()}"
        self._made: list[dramatiq.Broker] = []

    def dramatiqs(self) -> dramatiq.Broker:
        """Dramatiq's own; what fails is retried at once."""
        broker: Any = RedisBroker(url=self._url)
        broker.add_middleware(Results(backend=RedisBackend(url=self._url)))
        for one in broker.middleware:
            if isinstance(one, dramatiq.middleware.Retries):
                one.min_backoff, one.max_backoff = 1, 2
        return self._bound(broker)

    def ours(self) -> dramatiq.Broker:
        """Ours."""
        results = Results(backend=NamespacedResults())
        return self._bound(create_broker(self._settings, middleware=[results]))

    def _bound(self, broker: dramatiq.Broker) -> dramatiq.Broker:
        dramatiq.set_broker(broker)
        self._made.append(broker)
        return broker

    def close(self) -> None:
        """Closes them all."""
        for broker in self._made:
            broker.close()


@pytest.fixture
def brokers(settings: Settings, valkey: EmbeddedServer, client: RedisClient) -> Iterator[Brokers]:
    """Makes brokers for a test."""
    made = Brokers(settings, valkey)
    yield made
    made.close()


@pytest.fixture(params=["dramatiqs", "ours"])
def broker(request: pytest.FixtureRequest, brokers: Brokers) -> dramatiq.Broker:
    """A broker of each kind, one after the other: the test promises the same of both."""
    made: dramatiq.Broker = getattr(brokers, request.param)()
    return made
